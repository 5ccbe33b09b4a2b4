"""VOC07 classification: AlexNet, fine-tuned from the trunk to predict the classes of an image, of twenty."""
