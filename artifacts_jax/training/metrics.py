"""Metrics as pure functions of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Real


def psnr(x: Float[Array | np.ndarray, 'B H W C'], y: Float[Array | np.ndarray, 'B H W C']) -> Float[Array, ' B']:
    """Returns the peak signal-to-noise ratio of each pair of images in [-1, 1], in dB; inf for equal images."""
    peak = 2.0
    return 10 * jnp.log10(peak**2 / jnp.square(x - y).mean(axis=(1, 2, 3)))


def auc(
    scores: Real[Array | np.ndarray, ' N'],
    positives: Bool[Array | np.ndarray, ' N'],
    weights: Real[Array | np.ndarray, ' N'] | None = None,
) -> float:
    """Returns the area under the ROC curve: the probability that a positive example has a higher score.

    Ties count half.

    Args:
      scores: higher for examples that are predicted to be positive.
      positives: whether each example is positive.
      weights: the weights of the examples, by default all 1.

    Returns:
      The area in [0, 1]; NaN if one class is missing or a score is NaN.
    """
    scores, positives = np.asarray(scores, np.float64), np.asarray(positives, bool)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, np.float64)
    _, rank = np.unique(scores, return_inverse=True)
    above = np.bincount(rank, weights * positives)
    below = np.bincount(rank, weights * ~positives)
    pairs = above.sum() * below.sum()
    if pairs == 0 or np.isnan(scores).any():
        return float('nan')
    return float(above @ (below.cumsum() - below / 2) / pairs)


def knn_accuracy(
    bank: Float[Array | np.ndarray, 'N D'],
    bank_labels: Int[Array | np.ndarray, ' N'],
    queries: Float[Array | np.ndarray, 'M D'],
    query_labels: Int[Array | np.ndarray, ' M'],
    *,
    k: int,
    num_classes: int,
) -> Float[Array, '']:
    """Returns the accuracy, in [0, 1], of a k-nearest-neighbour classifier with cosine similarity.

    Args:
      bank: labelled features.
      bank_labels: in [0, num_classes).
      queries: features to classify.
      query_labels: the true labels of the queries.
      k: the number of neighbours that vote, at most N. Between classes with equal votes, the nearest neighbour decides.
      num_classes: number of classes.

    Raises:
      ValueError: k > N.
    """
    nearest = jnp.asarray(bank_labels)[find_neighbours(bank, queries, k=k)[0]]
    votes = jax.nn.one_hot(nearest, num_classes, dtype=jnp.int32).sum(axis=1)
    # Neighbours are sorted by distance, and argmax returns the first of equal values.
    winner = jnp.take_along_axis(votes, nearest, axis=1).argmax(axis=1, keepdims=True)
    return (jnp.take_along_axis(nearest, winner, axis=1)[:, 0] == jnp.asarray(query_labels)).mean()


def find_neighbours(
    bank: Float[Array | np.ndarray, 'N D'],
    queries: Float[Array | np.ndarray, 'M D'],
    *,
    k: int,
    excluded: Bool[Array | np.ndarray, 'M N'] | None = None,
) -> tuple[Int[Array, 'M {k}'], Float[Array, 'M {k}']]:
    """Returns the k nearest neighbours of each query by cosine similarity, nearest first.

    Args:
      bank: features to search.
      queries: features whose neighbours are returned.
      k: the number of neighbours.
      excluded: True for pairs that are not neighbours, such as a query and itself; by default no pair.

    Returns:
      (indices into the bank, similarities in [-1, 1]).

    Raises:
      ValueError: a query has fewer than k candidates.
    """
    candidates = len(bank) if excluded is None else int(np.min(np.sum(~np.asarray(excluded), axis=1)))
    if k > candidates:
        raise ValueError(f'k={k} is more than the {candidates} candidates: use a smaller k or a larger bank')
    similarity = jnp.einsum('md,nd->mn', _normalise(queries), _normalise(bank), precision='highest')
    if excluded is not None:
        similarity = jnp.where(excluded, -jnp.inf, similarity)
    similarities, indices = jax.lax.top_k(similarity, k)
    return indices, similarities


def rankme(features: Float[Array | np.ndarray, 'N D'], epsilon: float = 1e-7) -> Float[Array, '']:
    """Returns the effective rank of features, from 1 (collapsed) to about min(N, D).

    It is the exponential of the entropy of the singular values, which are normalised to sum to 1, plus epsilon (RankMe,
    Garrido et al., ICML 2023). The features are not centred.
    """
    values = jnp.linalg.svd(features, compute_uv=False)
    p = values / jnp.maximum(values.sum(), jnp.finfo(values.dtype).tiny) + epsilon
    return jnp.exp(-(p * jnp.log(p)).sum())


def spread(features: Float[Array | np.ndarray, 'N D']) -> Float[Array, '']:
    """Returns a measure of collapse, from 0 (all features are equal) to about 1 (isotropic features).

    It is the standard deviation of the L2-normalised features, averaged over dimensions, times sqrt(D) (SimSiam,
    Chen & He, CVPR 2021, section 4.1).
    """
    return _normalise(features).std(axis=0).mean() * jnp.sqrt(features.shape[1])


def find_nonfinite(values: dict) -> list[str]:
    """Returns the names of NaN or infinite values of {name: scalar}."""
    return [name for name, value in values.items() if not np.isfinite(value)]


def _normalise(features):
    features = jnp.asarray(features)
    norm = jnp.linalg.norm(features, axis=1, keepdims=True)
    return features / jnp.maximum(norm, jnp.finfo(features.dtype).tiny)
