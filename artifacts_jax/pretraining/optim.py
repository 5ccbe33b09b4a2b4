"""The optimiser: Adam with a linearly falling learning rate, and a moving average of the weights."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Int, PyTree
from ml_collections import ConfigDict

from artifacts_jax.models import layers
from artifacts_jax.models.cpu import in_place
from artifacts_jax.pretraining import losses
from artifacts_jax.training.state import State


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

    def scale_biases(updates, params=None):
        del params

        def scale(path, g):
            return g * options.bias_gradient_scale if layers.is_bias(path) else g

        return jax.tree_util.tree_map_with_path(scale, updates)

    return optax.chain(
        optax.stateless(scale_biases),
        _scale_by_adam(options.b1, options.b2, options.epsilon, options.epsilon_hat),
        optax.scale_by_learning_rate(learning_rate),
    )


def _scale_by_adam(b1, b2, epsilon, epsilon_hat):
    """As optax.scale_by_adam, or with Kingma and Ba's "epsilon hat" as in TensorFlow 1.

    That is added to the root of the second moment before it is corrected for its start at zero. At the first step
    that is as if epsilon were 1 / sqrt(1 - b2) times larger.
    """

    def update(grads, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: in_place.moving_average(m, g, b1), state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        first, second = 1 / (1 - b1**count), 1 / (1 - b2**count)
        if epsilon_hat:
            first, second = first / jnp.sqrt(second), 1
        updates = jax.tree.map(lambda m, v: first * m / (jnp.sqrt(second * v) + epsilon), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1, b2).init, update)


def descend(
    state: State, gradients: dict, optimiser: optax.GradientTransformation, *, l2: float
) -> tuple[State, dict, dict]:
    """Updates networks, each by an optimiser of its own, with the L2 of its weights.

    Args:
      state: has the networks.
      gradients: {network: gradient of its parameters}, without L2.
      optimiser: the optax optimiser that the state was made with.
      l2: weight of 0.5 * |w|^2.

    Returns:
      (state, {network: its L2 term}, {network: the norm of its gradient}); the term of a network without weights is a
      plain 0, the norm is without L2.
    """
    terms = {n: jax.value_and_grad(lambda params: l2 * losses.l2(params))(state.params[n]) for n in gradients}
    decays, norms = {n: decay for n, (decay, _) in terms.items()}, {n: norm(g) for n, g in gradients.items()}
    for network, gradient in gradients.items():
        gradient = jax.tree.map(jnp.add, gradient, terms[network][1])
        gradient = in_place.after(gradient, [*decays.values(), *norms.values()])
        state = state.apply_gradients(optimiser, {network: gradient})
    return state, decays, norms


def norm(gradients: PyTree) -> Float[Array, '']:
    """Returns the norm of all arrays of a tree together, by products: their squares are not written to memory."""
    return jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients)))


def moving_average(average: PyTree | None, params: PyTree, decay: float, step: Int[ArrayLike, '']) -> PyTree | None:
    """Returns the exponential moving average of params after a step; None stays None.

    At the start, where steps are few, the decay is (1 + step) / (10 + step) if that is less, as in the 2018 code.
    """
    if average is None:
        return None
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
