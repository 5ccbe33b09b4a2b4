"""The training loop, its state, checkpoints, random keys, metrics and reports, shared by all stages.

The modules do not import any stage; stages are passed as arguments.
"""
