"""Linear classifiers of features, and functions that both solvers use (lbfgs.py and sgd_solver.py).

Both solvers minimise mean cross-entropy + penalty * 0.5 * |weights|^2 (without the bias) on standardised features, for
several penalties at once, and pick the penalty on held-out training examples. Their parameters are
{'weights': [P, C, D], 'bias': [P, C]} for P classifiers, one for each penalty.
"""

import math
from functools import partial
from typing import Any, SupportsFloat

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Int32


class Classifier(flax.struct.PyTreeNode):
    """A linear classifier: logits = (features - mean) / scale @ weights + bias."""

    mean: Any  # [D] float32; not typed, because jax.tree.map creates classifiers with other leaves
    scale: Any  # [D] float32, the standard deviations; 1 where a feature is constant
    weights: Any  # [D, C] float32
    bias: Any  # [C] float32
    penalty: Any  # float, the picked weight of the L2 penalty
    held_out_accuracy: Any  # float in [0, 1], with that penalty, before the final fit


# By default, accelerators multiply float32 as bfloat16 or TF32, which is too coarse for gradient differences of L-BFGS.
_einsum = partial(jnp.einsum, precision='highest')


def pool(features: Float[Array, 'B H W C'], max_values: int) -> Float[Array, 'B D']:
    """Average-pools feature maps to the largest square grid that fits, and flattens them.

    Args:
      features: the maps.
      max_values: the maximum number of values per example; a map with more channels is pooled to one position.

    Returns:
      g * g * C values per example, where g is the largest grid <= min(H, W) with g * g * C <= max_values, at least 1.
      Cell i covers the positions from floor(i * H / g) to below ceil((i + 1) * H / g). Cells overlap if g does not
      divide H.
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


def predict(classifier: Classifier, features: Float[Array | np.ndarray, 'B D']) -> Float[Array, 'B C']:
    """Returns the logits of a classifier."""
    features = (features.astype(jnp.float32) - classifier.mean[None]) / classifier.scale[None]
    return _einsum('nd,dc->nc', features, classifier.weights) + classifier.bias[None]


@jax.jit
def compute_accuracy_counts(
    classifier: Classifier, features: Float[Array | np.ndarray, 'B D'], labels: Int[Array | np.ndarray, ' B']
) -> tuple[Int32[Array, ''], Int[ArrayLike, '']]:
    """Returns the counts for an accuracy: sum both over all batches, then divide once.

    Args:
      classifier: the classifier.
      features: the features of the examples.
      labels: the true labels.

    Returns:
      (correct, count).
    """
    correct = predict(classifier, features).argmax(axis=1) == labels
    return correct.sum(dtype=jnp.int32), len(labels)


def init_params(penalties: int, num_classes: int, dim: int) -> dict[str, Float[Array, '...']]:
    """Returns the parameters, zeros, of P classifiers; products are fastest if the axis of features is last."""
    return {'weights': jnp.zeros((penalties, num_classes, dim)), 'bias': jnp.zeros((penalties, num_classes))}


@jax.jit
def project(
    params: dict[str, Float[Array, '...']],
    mean: Float[Array, ' D'],
    scale: Float[Array, ' D'],
    features: Float[Array, 'N D'],
) -> Float[Array, 'P C N']:
    """Returns the logits of standardised features; the weights are scaled instead of the features, to avoid a copy."""
    weights = params['weights'] / scale[None, None]
    offset = params['bias'] - _einsum('pcd,d->pc', weights, mean)
    return _einsum('pcd,nd->pcn', weights, features) + offset[:, :, None]


@jax.jit
def count_correct(
    logits: Float[Array, 'P C N'], labels: Int[Array, ' N'], included: Bool[Array, ' N']
) -> Int32[Array, ' P']:
    """Returns the number of included examples that each of the P classifiers predicts correctly."""
    return ((logits.argmax(axis=1) == labels[None]) & included[None]).sum(axis=1, dtype=jnp.int32)


def make_classifier(
    params: dict[str, Float[Array, '...']],
    index: int,
    mean: Float[Array, ' D'],
    scale: Float[Array, ' D'],
    penalty: SupportsFloat,
    held_out_accuracy: SupportsFloat,
) -> Classifier:
    """Returns the classifier at an index of the P classifiers."""
    weights, bias = params['weights'][index].T, params['bias'][index]
    return Classifier(mean, scale, weights, bias, float(penalty), float(held_out_accuracy))


def compute_weights(included: Bool[Array, ' N']) -> Float[Array, ' N']:
    """Returns the weight of each example in a mean over the included examples."""
    return included / jnp.maximum(included.sum(), 1)


def compute_moments(
    features: Float[Array, 'N D'], included: Bool[Array, ' N']
) -> tuple[Float[Array, ' D'], Float[Array, ' D']]:
    """Returns (mean, variance) over the included examples."""
    # With the offset, the variance of a constant feature is exactly 0, in spite of rounding.
    offset, weights = features[included.argmax()], compute_weights(included)[:, None]
    mean = offset + (weights * (features - offset[None])).sum(axis=0)
    return mean, (weights * jnp.square(features - mean[None])).sum(axis=0)


def compute_scale(variance: Float[Array, ' D']) -> Float[Array, ' D']:
    """Returns the standard deviations; 1 for constant features."""
    return jnp.where(variance > 0, jnp.sqrt(variance), 1.0)
