"""What the learned features are good for: evaluations by published protocols, most of them a module each."""
