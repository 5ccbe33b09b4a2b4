"""Images: the examples of a split, batches as a function of (seed, step), and augmentation on the device.

source.py alone knows TensorFlow; arrays.py needs nothing but NumPy and Pillow. Rests on devices.
"""
