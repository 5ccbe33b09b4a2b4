"""A linear probe of frozen layers by segmentation, on any images with masks."""
