"""Images: the examples of a split, batches as a function of (seed, step), and augmentation on the device.

Whatever holds the images, a split is a random-access sequence of examples: sources.py.
"""
