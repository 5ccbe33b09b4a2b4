"""The method: stage 1, the autoencoder, and stage 2, the game of artifacts, with their losses and optimiser.

A stage is pure functions of a state: plan, init_state, train_step, make_evaluator and make_plotter;
training/loop.py runs it.
"""
