"""Stochastic gradient descent with momentum, as Caffe has it and as PyTorch and Optax have it.

They differ where the learning rate changes. Caffe's momentum holds updates, which are scaled already: v = m v + lr g,
w -= v. PyTorch's holds gradients: v = m v + g, w -= lr v. So Caffe's last updates at a rate live on for tens of steps
after it has dropped. Source: BVLC/caffe, sgd_solver.cpp.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

FORMS = ('caffe', 'torch')


class Momentum(NamedTuple):
    """What the optimiser carries."""

    count: Any  # updates done
    trace: Any


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
      rate: the learning rate by step.
      form: 'caffe' or 'torch'.
      momentum: part of the trace that stays.
      decay: maps a parameter's tree path to the weight of its L2.
      multiplier: maps it to a factor on the rate, as Caffe's lr_mult.
      factors: on the rate, of parameters with that many entries along their first axis; () is one for all.
      clip: largest norm of all gradients together, before the decay is added, as Caffe has it; 0: any.
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
