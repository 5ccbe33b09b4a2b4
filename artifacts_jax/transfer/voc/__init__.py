"""Tasks on PASCAL VOC: classification, detection, segmentation, and linear SVMs on frozen features."""
