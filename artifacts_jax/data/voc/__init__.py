"""PASCAL VOC, as its devkit and tfds have it: images with objects and masks."""
