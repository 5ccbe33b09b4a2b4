"""The pretraining method: stage 1 (autoencoder), stage 2 (adversarial training on artifacts), losses and optimiser.

A stage is a module of pure functions of a state: get_steps_and_batch_size, init_state, train_step, make_evaluator and
make_plotter.
training/loop.py runs the stages.
"""
