"""The optimiser: Adam with a linearly falling learning rate, and a moving average of the weights."""

import jax
import jax.numpy as jnp
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
    options = config.optim
    scale_by_adam = _scale_by_adam_hat if options.epsilon_hat else optax.scale_by_adam

    def scale_biases(updates, params=None):
        del params

        def scale(path, g):
            return g * options.bias_gradient_scale if layers.is_bias(path) else g

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.chain(
        optax.stateless(scale_biases),
        scale_by_adam(options.b1, options.b2, options.epsilon),
        optax.scale_by_learning_rate(learning_rate),
    )


def _scale_by_adam_hat(b1, b2, epsilon):
    """As optax.scale_by_adam, with Kingma and Ba's "epsilon hat" as in TensorFlow 1.

    It is added to the root of the second moment before that is corrected for its start at zero. At the first step
    that is as if epsilon were 1 / sqrt(1 - b2) times larger.
    """

    def update(grads, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, grads)
        correction = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        updates = jax.tree.map(lambda m, v: correction * m / (jnp.sqrt(v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1, b2).init, update)


def moving_average(average, params, decay: float, step):
    """Returns the exponential moving average of params after a step; None stays None.

    At the start, where steps are few, the decay is (1 + step) / (10 + step) if that is less, as in the 2018 code.
    """
    if average is None:
        return None
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
