"""Linear classifiers on each layer of the frozen trunk, trained together, as in the ImageNet and Places tables."""
