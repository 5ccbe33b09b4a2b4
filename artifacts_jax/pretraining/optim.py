"""The optimiser: Adam with a linearly decaying learning rate, and the moving average (EMA) of the weights."""

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
    """Returns the learning rate as a function of the step.

    The rate decays linearly to `final_fraction` of its initial value over the first `decay_fraction` of the steps, then
    it is constant.
    """
    return optax.linear_schedule(
        learning_rate,
        learning_rate * config.optim.final_fraction,
        max(1, round(steps * config.optim.decay_fraction)),
    )


def adam(learning_rate: optax.ScalarOrSchedule, config: ConfigDict) -> optax.GradientTransformation:
    """Returns Adam as in the 2018 code: gradients of biases are first scaled by `bias_gradient_scale` (there 2)."""
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
    """Returns optax.scale_by_adam, or with `epsilon_hat` the form of TensorFlow 1 ("epsilon hat" in Kingma & Ba).

    TensorFlow 1 adds epsilon to the root of the second moment before bias correction. At the first step, this equals an
    epsilon that is 1 / sqrt(1 - b2) times larger.
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


def apply_gradients(
    state: State, gradients: dict, optimiser: optax.GradientTransformation, *, l2: float
) -> tuple[State, dict, dict]:
    """Updates each network with its own optimiser state, after adding the gradient of the L2 loss of its weights.

    Args:
      state: contains the networks.
      gradients: {network: gradient with respect to its parameters}, without L2.
      optimiser: the optax optimiser that the state was created with.
      l2: weight of 0.5 * |w|^2.

    Returns:
      (state, {network: L2 loss}, {network: norm of the gradient without L2}). The L2 loss of a network without weights
      is the Python number 0.
    """
    l2_losses = {n: jax.value_and_grad(lambda params: l2 * losses.l2(params))(state.params[n]) for n in gradients}
    norms = {network: global_norm(gradient) for network, gradient in gradients.items()}
    l2_terms = {network: term for network, (term, _) in l2_losses.items()}
    for network, gradient in gradients.items():
        gradient = jax.tree.map(jnp.add, gradient, l2_losses[network][1])
        gradient = in_place.wait_for_readers(gradient, [*l2_terms.values(), *norms.values()])
        state = state.apply_gradients(optimiser, {network: gradient})
    return state, l2_terms, norms


def global_norm(gradients: PyTree) -> Float[Array, '']:
    """Returns the Euclidean norm of all arrays of a tree, from dot products: no array of squares is allocated."""
    return jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradients)))


def moving_average(average: PyTree | None, params: PyTree, decay: float, step: Int[ArrayLike, '']) -> PyTree | None:
    """Returns the exponential moving average of the parameters after a step; None if `average` is None.

    In the first steps, the decay is (1 + step) / (10 + step) if that is smaller, as in the 2018 code.
    """
    if average is None:
        return None
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
