"""VOC07's detection, as Fast R-CNN has it: proposals, what is learned and found in them, and how that is scored."""
