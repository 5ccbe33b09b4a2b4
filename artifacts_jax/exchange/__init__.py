"""Exports of trained networks, and the import of checkpoints of the authors' TensorFlow 1 code."""
