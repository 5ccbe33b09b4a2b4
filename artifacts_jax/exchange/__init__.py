"""What leaves a run and what enters from elsewhere: exports, and checkpoints of the authors' TensorFlow 1 code."""
