"""Linear classifiers of features: multinomial logistic regression by L-BFGS, or by SGD if memory is short.

Both minimise mean cross-entropy + penalty * 0.5 * |weights|^2 (the bias is free) on standardised features,
for several penalties at once, and pick the penalty on a held-out part of the training examples.
"""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax


class Classifier(flax.struct.PyTreeNode):
    """A linear classifier: logits = (features - mean) / scale @ weights + bias."""

    mean: Any  # [D] float32
    scale: Any  # [D] float32, the standard deviations; 1 where a feature is constant
    weights: Any  # [D, C] float32
    bias: Any  # [C] float32
    penalty: float  # the weight of the L2 penalty that was picked
    held_out_accuracy: float  # of that penalty, in [0, 1], before any refit


# Accelerators multiply float32 as bfloat16 or TF32 unless told, too coarse for L-BFGS's gradient differences.
_einsum = partial(jnp.einsum, precision='highest')


def pool(features, max_values: int):
    """Average-pools feature maps to the largest square grid that fits, and flattens them.

    Args:
      features: [B, H, W, C].
      max_values: the most values per example; a map of more channels is still pooled to one position.

    Returns:
      [B, g * g * C], g the largest grid <= min(H, W) with g * g * C <= max_values, at least 1. Cell i covers
      the positions from floor(i * H / g) to below ceil((i + 1) * H / g): they overlap if g does not divide H.
    """
    batch, height, width, channels = features.shape
    grid = max(1, min(height, width, math.isqrt(max_values // channels)))

    def averages(size):
        cell, position = np.arange(grid)[:, None], np.arange(size)[None]
        inside = (position >= cell * size // grid) & (position < -(-(cell + 1) * size // grid))
        return (inside / inside.sum(axis=1, keepdims=True)).astype(features.dtype)

    if (grid, grid) != (height, width):
        features = _einsum('gh,bhwc->bgwc', averages(height), features)
        features = _einsum('gw,bhwc->bhgc', averages(width), features)
    return features.reshape(batch, grid * grid * channels)


def predict(classifier: Classifier, features):
    """Returns the logits [B, C] of features [B, D]."""
    features = (features.astype(jnp.float32) - classifier.mean[None]) / classifier.scale[None]
    return _einsum('nd,dc->nc', features, classifier.weights) + classifier.bias[None]


@jax.jit
def accuracy_counts(classifier: Classifier, features, labels, mask):
    """Counts what is right: sum both over the batches, then divide once.

    Args:
      classifier: the classifier.
      features: [B, D].
      labels: [B] integers.
      mask: [B] bool, False for padding.

    Returns:
      (correct, count), int32 scalars.
    """
    correct = predict(classifier, features).argmax(axis=1) == labels
    return (correct & mask).sum(dtype=jnp.int32), mask.sum(dtype=jnp.int32)


def fit_lbfgs(
    features, labels, *, num_classes: int, penalties: tuple, held_out: float, iterations: int, key
) -> Classifier:
    """Fits a classifier on features in memory; the features are read in place, never copied or standardised.

    Args:
      features: [N, D] float32.
      labels: [N] integers in [0, num_classes).
      num_classes: C.
      penalties: weights of the L2 penalty to pick from; the earlier wins a tie.
      held_out: part of the examples, in (0, 1), that picks the penalty.
      iterations: the most steps of L-BFGS; they end earlier if every gradient's norm is below 1e-4, where the
        loss is within about 5e-9 / penalty of its minimum.
      key: draws the held-out examples.

    Returns:
      The classifier, refitted to all N examples with the picked penalty.

    Raises:
      ValueError: if labels have another shape or range, or one part of the examples would be empty.
    """
    features, labels, penalties = jnp.asarray(features, jnp.float32), jnp.asarray(labels), tuple(penalties)
    examples, count = len(features), round(held_out * len(features))
    if labels.shape != (examples,) or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f'labels should be [{examples}] integers from 0 to {num_classes - 1}, got {labels}')
    if not 0 < count < examples:
        raise ValueError(f'held_out={held_out} of {examples} examples is {count}: keep some on both sides')
    test = jnp.zeros(examples, bool).at[jax.random.permutation(key, examples)[:count]].set(True)

    def fit(counted, params, penalties):
        return _minimise(features, labels, counted, params, jnp.asarray(penalties, jnp.float32), iterations)

    params = _zeros(len(penalties), num_classes, features.shape[1])
    params, logits, _, _ = fit(~test, params, penalties)
    accuracy = _correct(logits, labels, test) / count
    best = int(accuracy.argmax())

    params = jax.tree.map(lambda x: x[best : best + 1], params)
    params, _, mean, scale = fit(jnp.ones(examples, bool), params, penalties[best : best + 1])
    return _classifier(params, 0, mean, scale, penalties[best], accuracy[best])


def fit_sgd(
    batches_fn: Callable[[int], Iterable[tuple]],
    *,
    dim: int,
    num_classes: int,
    penalties: tuple,
    epochs: int,
    steps_per_epoch: int,
    learning_rate: float,
) -> Classifier:
    """Fits a classifier on features that do not fit in memory, by SGD with momentum 0.9 and a cosine to 0.

    There are epochs + 2 passes over the features: the first for their mean and standard deviation, the last
    to pick the penalty. Unlike in fit_lbfgs there is no refit: held-out examples are not learnt from.

    Args:
      batches_fn: maps an epoch to its batches (features [b, D], labels [b], mask [b], held_out [b]); mask is
        False for padding, held_out may depend only on the example. The first and the last pass read epoch 0.
      dim: D.
      num_classes: C.
      penalties: weights of the L2 penalty to pick from; the earlier wins a tie.
      epochs: passes with updates.
      steps_per_epoch: batches in an epoch.
      learning_rate: the first learning rate, for standardised features.

    Returns:
      The classifier with the picked penalty.

    Raises:
      ValueError: if an epoch has not steps_per_epoch batches, or no example is held out.
    """
    optimiser = optax.sgd(optax.cosine_decay_schedule(learning_rate, epochs * steps_per_epoch), momentum=0.9)

    def batches(epoch):
        steps = 0
        for features, *rest in batches_fn(epoch):
            yield jnp.asarray(features, jnp.float32), *map(jnp.asarray, rest)
            steps += 1
        if steps != steps_per_epoch:
            raise ValueError(f'epoch {epoch} has {steps} batches, not steps_per_epoch={steps_per_epoch}')

    moments = jnp.zeros(()), jnp.zeros(dim), jnp.zeros(dim)
    for features, _, mask, held_out in batches(0):
        moments = _merge_moments(*moments, features, mask & ~held_out)
    _, mean, variance = moments
    scale = _scale(variance)

    def objective(params, features, labels, counted):
        log_probabilities = jax.nn.log_softmax(_project(params, mean, scale, features), axis=1)
        targets = jax.nn.one_hot(labels, num_classes, axis=0) * _share(counted)[None]
        squares = jnp.square(params['weights']).sum(axis=(1, 2))
        return 0.5 * (jnp.asarray(penalties) * squares).sum() - (targets[None] * log_probabilities).sum()

    @jax.jit
    def update(params, state, features, labels, counted):
        # A sum of independent objectives: each penalty's classifier is trained as if it were alone.
        updates, state = optimiser.update(jax.grad(objective)(params, features, labels, counted), state)
        return optax.apply_updates(params, updates), state

    params = _zeros(len(penalties), num_classes, dim)
    state = optimiser.init(params)
    for epoch in range(epochs):
        for features, labels, mask, held_out in batches(epoch):
            params, state = update(params, state, features, labels, mask & ~held_out)

    correct, count = np.zeros(len(penalties), int), 0
    for features, labels, mask, held_out in batches(0):
        correct += _correct(_project(params, mean, scale, features), labels, mask & held_out)
        count += int((mask & held_out).sum())
    if not count:
        raise ValueError('no example is held out to pick the penalty: batches_fn should mark some')
    best = int(correct.argmax())
    return _classifier(params, best, mean, scale, penalties[best], correct[best] / count)


def _zeros(penalties, classes, dim):
    """Returns the parameters of P classifiers; products are fastest with the features' axis last."""
    return {'weights': jnp.zeros((penalties, classes, dim)), 'bias': jnp.zeros((penalties, classes))}


@jax.jit
def _project(params, mean, scale, features):
    """Returns the logits [P, C, N] of features [N, D], standardised through the weights: no copy is made."""
    weights = params['weights'] / scale[None, None]
    offset = params['bias'] - _einsum('pcd,d->pc', weights, mean)
    return _einsum('pcd,nd->pcn', weights, features) + offset[:, :, None]


def _correct(logits, labels, counted):
    """Returns how many of the counted examples each of the P classifiers gets right, [P] on the host."""
    return np.asarray(((logits.argmax(axis=1) == labels[None]) & counted[None]).sum(axis=1))


def _classifier(params, which, mean, scale, penalty, accuracy):
    weights, bias = params['weights'][which].T, params['bias'][which]
    return Classifier(mean, scale, weights, bias, float(penalty), float(accuracy))


def _share(counted):
    """Returns the weight [N] of each example in a mean over the counted ones."""
    return counted / jnp.maximum(counted.sum(), 1)


def _moments(features, counted):
    """Returns (mean, variance), both [D], over the counted examples."""
    # The offset makes the variance of a constant feature exactly 0, whatever the rounding of sums.
    offset, share = features[counted.argmax()], _share(counted)[:, None]
    mean = offset + (share * (features - offset[None])).sum(axis=0)
    return mean, (share * jnp.square(features - mean[None])).sum(axis=0)


@jax.jit
def _merge_moments(count, mean, variance, features, counted):
    """Returns (count, mean, variance) with those of a batch merged in (Chan et al., 1979)."""
    batch_mean, batch_variance = _moments(features, counted)
    total = count + counted.sum()
    part, difference = counted.sum() / jnp.maximum(total, 1), batch_mean - mean
    variance = (1 - part) * variance + part * batch_variance + part * (1 - part) * jnp.square(difference)
    return total, mean + part * difference, variance


def _scale(variance):
    return jnp.where(variance > 0, jnp.sqrt(variance), 1.0)


@jax.jit
def _minimise(features, labels, counted, params, penalties, iterations):
    """Runs L-BFGS on the counted examples for P penalties side by side.

    One product of the features with all classifiers and one back per iteration; a vmap of optax.lbfgs would
    take four or more, because both branches of its line search run and all wait for the slowest.

    Returns:
      (params, logits [P, C, N], mean, scale).
    """
    mean, variance = _moments(features, counted)
    scale = _scale(variance)
    targets = jax.nn.one_hot(labels, params['bias'].shape[1], axis=0)[None]
    share = _share(counted)[None, None]
    decay = {'weights': penalties[:, None, None], 'bias': jnp.zeros((len(penalties), 1))}

    def project(params):
        return _project(params, mean, scale, features)

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


def _line_search(logits, change, targets, share, linear, square):
    """Returns the step sizes [P] that about minimise the loss of logits + size * change, by Newton's method.

    The loss is convex along the line, and the logits are linear in the parameters, so that no product with
    the features is needed; linear + size * square is the slope of the penalty.
    """

    def derivatives(size):
        probabilities = jax.nn.softmax(logits + size[:, None, None] * change, axis=1)
        centred = change - (probabilities * change).sum(axis=1, keepdims=True)
        slope = -(share * targets * centred).sum(axis=(1, 2)) + linear + size * square
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

    start, _ = derivatives(jnp.zeros_like(linear))
    ones = jnp.ones_like(linear)
    carry = 0, ones, 0 * ones, jnp.inf * ones, ones < 0
    return jax.lax.while_loop(lambda c: (c[0] < 10) & ~c[4].all(), step, carry)[1]
