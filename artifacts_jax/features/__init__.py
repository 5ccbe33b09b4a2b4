"""Features of the frozen trunk: how they are extracted, and what linear classifiers make of them."""
