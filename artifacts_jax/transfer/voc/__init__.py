"""PASCAL VOC: its images with their objects and masks, batches, the protocols' crops, and how they are scored.

devkit.py opens it, whatever holds it: a VOCdevkit folder, or what tfds has prepared. Rests on data.
"""
