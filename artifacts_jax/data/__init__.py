"""Data: the examples of a split, batches as a function of (seed, step), and augmentation on the device.

A split is a random-access sequence of examples, independent of the storage of the images (sources.py).
"""
