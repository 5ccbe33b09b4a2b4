"""Semantic segmentation of VOC2012 with FCN-32s: data, training, metrics and export."""
