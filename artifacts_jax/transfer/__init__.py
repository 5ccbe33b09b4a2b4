"""What the learned features are good for, by published protocols: a classifier on the trunk, and STL-10's folds."""
