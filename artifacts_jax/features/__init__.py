"""Features of the frozen trunk: how they are extracted, and what linear classifiers, L-BFGS's or SGD's, make of them.

Rests on training, data, devices, models and drawing.
"""
