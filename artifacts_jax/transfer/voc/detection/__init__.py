"""Detection on VOC2007 with Fast R-CNN: region proposals, training, detections and average precision."""
