"""The optimiser: Adam with a linearly falling learning rate, and a moving average of the weights."""

import jax
import optax
from ml_collections import ConfigDict

from artifacts_jax import layers


def schedule(learning_rate: float, steps: int, config: ConfigDict) -> optax.Schedule:
    """Returns the learning rate by step: linear to final_fraction over decay_fraction of the steps, then constant."""
    return optax.linear_schedule(
        learning_rate,
        learning_rate * config.optim.final_fraction,
        max(1, round(steps * config.optim.decay_fraction)),
    )


def adam(learning_rate: optax.ScalarOrSchedule, config: ConfigDict) -> optax.GradientTransformation:
    """Returns the reference's Adam, for which the gradients of biases are scaled first (2018 code: doubled)."""

    def scale_biases(updates, params=None):
        del params

        def scale(path, g):
            return g * config.optim.bias_gradient_scale if layers.is_bias(path) else g

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.chain(
        optax.stateless(scale_biases),
        optax.adam(learning_rate, config.optim.b1, config.optim.b2, config.optim.epsilon),
    )


def moving_average(average, params, decay: float):
    """Returns the exponential moving average of params after a step; None stays None."""
    if average is None:
        return None
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
