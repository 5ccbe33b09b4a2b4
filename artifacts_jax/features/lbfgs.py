"""Multinomial logistic regression by L-BFGS, on features in memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from artifacts_jax.features import linear


def fit_lbfgs(
    features: Float[Array | np.ndarray, 'N D'],
    labels: Int[Array | np.ndarray, ' N'],
    *,
    num_classes: int,
    penalties: tuple,
    held_out: float | Bool[np.ndarray, ' N'],
    iterations: int,
    key: Key[Array, ''],
) -> linear.Classifier:
    """Fits a classifier on features in memory, without a standardised copy of the features.

    Args:
      features: the features of all examples.
      labels: in [0, num_classes).
      num_classes: the number of classes.
      penalties: candidates for the weight of the L2 penalty; the first of equally good ones is picked.
      held_out: the examples that pick the penalty: their fraction, in (0, 1), or a mask.
      iterations: the maximum number of L-BFGS steps. They end earlier if the norm of every gradient is below 1e-4; the
        loss is then within about 5e-9 / penalty of its minimum.
      key: samples the held-out examples if held_out is a fraction.

    Returns:
      The classifier, fitted again to all examples with the picked penalty.

    Raises:
      ValueError: the labels have a wrong shape or range, or there are no held-out or no other examples.
    """
    features, labels, penalties = jnp.asarray(features, jnp.float32), jnp.asarray(labels), tuple(penalties)
    examples, chosen = len(features), isinstance(held_out, np.ndarray)
    count = int(held_out.sum()) if isinstance(held_out, np.ndarray) else round(held_out * examples)
    if labels.shape != (examples,) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f'labels must be [{examples}] integers from 0 to {num_classes - 1}, got {labels}')
    if not 0 < count < examples:
        raise ValueError(
            f'held_out={held_out} of {examples} examples is {count}: hold out at least one example, and leave at least'
            f' one for the fit'
        )
    if chosen:
        test = jnp.asarray(held_out)
    else:
        test = jnp.zeros(examples, bool).at[jax.random.permutation(key, examples)[:count]].set(True)

    def fit(included, params, penalties):
        return _minimise(features, labels, included, params, jnp.asarray(penalties, jnp.float32), iterations)

    params = linear.init_params(len(penalties), num_classes, features.shape[1])
    params, logits, _, _ = fit(~test, params, penalties)
    accuracy = np.asarray(linear.count_correct(logits, labels, test)) / count
    best = int(accuracy.argmax())

    params = jax.tree.map(lambda x: x[best : best + 1], params)
    params, _, mean, scale = fit(jnp.ones(examples, bool), params, penalties[best : best + 1])
    return linear.make_classifier(params, 0, mean, scale, penalties[best], accuracy[best])


@jax.jit
def _minimise(features, labels, included, params, penalties, iterations):
    """Runs L-BFGS on the included examples for P penalties at once.

    Each iteration multiplies the features with all classifiers once, and back once. A vmap of optax.lbfgs would need
    four products or more, because both branches of its line search run, and all classifiers wait for the slowest.

    Returns:
      (params, logits [P, C, N], mean, scale).
    """
    mean, variance = linear.compute_moments(features, included)
    scale = linear.compute_scale(variance)
    targets = jax.nn.one_hot(labels, params['bias'].shape[1], axis=0)[None]
    share = linear.compute_weights(included)[None, None]
    decay = {'weights': penalties[:, None, None], 'bias': jnp.zeros((len(penalties), 1))}

    def project(params):
        return linear.project(params, mean, scale, features)

    transpose = jax.linear_transpose(project, params)
    memory = optax.scale_by_lbfgs()

    def gradient(params, logits):
        (slope,) = transpose((jax.nn.softmax(logits, axis=1) - targets) * share)
        return jax.tree.map(lambda g, d, p: g + d * p, slope, decay, params)

    def inner(x, y):
        products = jax.tree.map(lambda a, b: (a * b).reshape(len(penalties), -1).sum(axis=1), x, y)
        return products['weights'] + products['bias']

    def unconverged(gradients):
        return inner(gradients, gradients) > 1e-8

    def step(carry):
        count, params, logits, gradients, state = carry
        direction, state = jax.vmap(memory.update)(gradients, state, params)
        direction = jax.tree.map(jnp.negative, direction)
        change = project(direction)
        quadratic = [inner(jax.tree.map(jnp.multiply, decay, direction), x) for x in (params, direction)]
        size = _line_search(logits, change, targets, share, *quadratic)
        size = jnp.where(unconverged(gradients), size, 0.0)
        params = jax.tree.map(lambda p, d: p + size.reshape(-1, *[1] * (p.ndim - 1)) * d, params, direction)
        logits = logits + size[:, None, None] * change
        return count + 1, params, logits, gradient(params, logits), state

    logits = project(params)
    carry = 0, params, logits, gradient(params, logits), jax.vmap(memory.init)(params)
    carry = jax.lax.while_loop(lambda c: (c[0] < iterations) & unconverged(c[3]).any(), step, carry)
    _, params, logits, _, _ = carry
    return params, logits, mean, scale


def _line_search(logits, change, targets, share, constant, square):
    """Returns step sizes [P] that approximately minimise the loss of logits + size * change, by Newton's method.

    The loss is convex along the line. The logits are linear in the parameters, so that no product with the features is
    needed. The slope of the penalty is constant + size * square.
    """

    def derivatives(size):
        probabilities = jax.nn.softmax(logits + size[:, None, None] * change, axis=1)
        centred = change - (probabilities * change).sum(axis=1, keepdims=True)
        slope = -(share * targets * centred).sum(axis=(1, 2)) + constant + size * square
        return slope, (share * probabilities * jnp.square(centred)).sum(axis=(1, 2)) + square

    def step(carry):
        count, size, low, high, _ = carry
        slope, curvature = derivatives(size)
        low, high = jnp.where(slope < 0, size, low), jnp.where(slope < 0, high, size)
        newton = size - slope / jnp.maximum(curvature, 1e-30)
        halfway = jnp.where(jnp.isinf(high), 4 * size, (low + high) / 2)
        better = jnp.where((newton > low) & (newton < jnp.minimum(high, 4 * size)), newton, halfway)
        flat = jnp.abs(slope) <= 0.1 * jnp.abs(start)
        return count + 1, jnp.where(flat, size, better), low, high, flat

    start, _ = derivatives(jnp.zeros_like(constant))
    ones = jnp.ones_like(constant)
    carry = 0, ones, 0 * ones, jnp.inf * ones, ones < 0
    return jax.lax.while_loop(lambda c: (c[0] < 10) & ~c[4].all(), step, carry)[1]
