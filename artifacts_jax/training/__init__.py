"""What every stage shares: the loop, its state, checkpoints and keys, and what is measured and reported of it.

Knows no stage: these are given to it.
"""
