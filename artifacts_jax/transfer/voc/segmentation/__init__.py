"""VOC12's semantic segmentation by a fully convolutional network: its data, what is learned, and how it is scored."""
