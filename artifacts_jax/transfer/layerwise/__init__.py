"""Linear classifiers on every layer of the frozen trunk, all at once, as ImageNet and Places tables have them."""
