"""Fast forms for CPUs of what the networks and their optimiser compute, each equal to a plain form, as tests check."""
