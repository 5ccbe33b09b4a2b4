"""VOC07's classification: AlexNet on the trunk, fine-tuned to say which of twenty classes an image has."""
