"""Extraction of features from the frozen trunk, and linear classifiers on them."""
