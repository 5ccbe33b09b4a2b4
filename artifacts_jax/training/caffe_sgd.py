"""Stochastic gradient descent with momentum, in the form of Caffe or of PyTorch and Optax.

The forms differ when the learning rate changes. Caffe accumulates updates, which include the rate: v = m v + lr g,
w -= v. PyTorch accumulates gradients: v = m v + g, w -= lr v. In Caffe, large updates therefore continue for tens of
steps after a drop of the rate. Source: BVLC/caffe, sgd_solver.cpp.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

FORMS = ('caffe', 'torch')


class Momentum(NamedTuple):
    """The state of the optimiser."""

    count: Any  # the number of completed updates
    trace: Any  # the accumulated updates or gradients


def caffe_sgd(
    rate: optax.Schedule,
    *,
    form: str,
    momentum: float = 0.9,
    decay: Callable[[tuple], float] = lambda path: 0.0,
    multiplier: Callable[[tuple], float] = lambda path: 1.0,
    factors: tuple[float, ...] = (),
    clip: float = 0.0,
) -> optax.GradientTransformation:
    """Returns the optimiser.

    Args:
      rate: the learning rate as a function of the step.
      form: 'caffe' or 'torch'.
      momentum: the fraction of the trace that remains after a step.
      decay: maps the tree path of a parameter to its L2 weight.
      multiplier: maps the tree path to a factor on the rate, like Caffe's lr_mult.
      factors: factors on the rate for the entries of the first axis of every parameter; () uses no factors.
      clip: the maximum norm of all gradients together, before the L2 term is added, as in Caffe; 0 does not clip.
    """

    def scale(path, x):
        values = multiplier(path) * jnp.asarray(factors or (1.0,))
        return values.reshape(-1, *(1,) * (x.ndim - 1)) if factors else values[0]

    def update(grads, state, params):
        now = rate(state.count)
        if clip:
            norm = optax.tree.norm(grads)
            grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, clip / jnp.maximum(norm, 1e-30)), grads)
        grads = jax.tree_util.tree_map_with_path(lambda path, g, p: g + decay(path) * p, grads, params)
        if form == 'caffe':
            grads = jax.tree_util.tree_map_with_path(lambda path, g: now * scale(path, g) * g, grads)
        trace = jax.tree.map(lambda v, g: momentum * v + g, state.trace, grads)
        updates = trace
        if form == 'torch':
            updates = jax.tree_util.tree_map_with_path(lambda path, v: now * scale(path, v) * v, trace)
        return jax.tree.map(jnp.negative, updates), Momentum(state.count + 1, trace)

    def init(params: PyTree) -> Momentum:
        return Momentum(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    return optax.GradientTransformation(init, update)
