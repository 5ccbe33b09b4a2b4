"""Tasks on PASCAL VOC: classification, detection, segmentation, and support vector machines on frozen features."""
