"""The k nearest neighbours of queries in a bank, and the votes of these neighbours.

The bank is searched in blocks, so it may be larger than the memory. Each of the k neighbours votes for its class with
the weight exp(similarity / temperature).

| case | rule |
|---|---|
| two neighbours have the same similarity | the example that was read first is nearer |
| two classes have the same votes | the class with the lower index is first |
| a class has no votes | it is never in the top 5 |
| a similarity of a query is nan | the query counts as wrong |
| the bank has fewer than k examples | all examples vote |

Source: Wu et al., CVPR 2018 (arXiv 1805.01978), section 3.4, whose temperature is 0.07; facebookresearch/vissl has 0.1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

TOPS = (1, 5)
VOTING = 64  # queries in a batch of votes: comparing all pairs of neighbours needs k * k values for each query


class Nearest(NamedTuple):
    """The nearest neighbours of each query among the examples searched so far, nearest first."""

    similarity: Float32[Array | np.ndarray, 'B K']  # cosine similarity; -inf if there is no neighbour yet
    label: Int32[Array | np.ndarray, 'B K']  # -1 if there is no neighbour yet


def make_empty(num_queries: int, k: int) -> Nearest:
    """Returns the state before the search: no neighbours for each query."""
    return Nearest(np.full((num_queries, k), -np.inf, np.float32), np.full((num_queries, k), -1, np.int32))


def merge(
    nearest: Nearest,
    queries: Float32[Array | np.ndarray, 'B D'],
    bank: Float32[Array | np.ndarray, 'N D'],
    labels: Int32[Array | np.ndarray, ' N'],
) -> Nearest:
    """Returns the nearest neighbours among the previous neighbours and a new block of the bank.

    Args:
      nearest: the previous neighbours.
      queries: L2-normalised features of the queries.
      bank: L2-normalised features of the block.
      labels: the classes of the block; -1 for padding.
    """
    similarity = jnp.einsum('bd,nd->bn', queries, bank, precision='highest')
    similarity = jnp.where(labels[None] >= 0, similarity, -jnp.inf)
    candidates = jnp.concatenate([nearest.similarity, similarity], axis=1)
    classes = jnp.concatenate([nearest.label, jnp.broadcast_to(labels[None], similarity.shape)], axis=1)
    top, indices = jax.lax.top_k(candidates, nearest.similarity.shape[1])  # equal values keep their order
    return Nearest(top, jnp.take_along_axis(classes, indices, axis=1))


def vote(
    nearest: Nearest, labels: Int32[Array | np.ndarray, ' B'], *, ks: Sequence[int], temperature: float
) -> Bool[Array, 'B _ 2']:
    """Returns whether the votes of the neighbours are correct, for each query and k: (top-1, top-5).

    Args:
      nearest: at least max(ks) neighbours of each query.
      labels: the true classes of the queries.
      ks: the numbers of neighbours that vote.
      temperature: see above.
    """

    def vote_for_query(query):
        (similarity, label), truth = query
        return jnp.stack([_vote(similarity[:k], label[:k], truth, temperature) for k in ks])

    return jax.lax.map(vote_for_query, (nearest, labels), batch_size=VOTING)


def _vote(similarity, label, truth, temperature):
    """Returns whether the class `truth` is in the top 1 and in the top 5 of the votes for one query."""
    # Subtracting the largest similarity keeps the ratios of the weights and avoids overflow. The weight of -inf is 0.
    weight = jnp.exp((similarity - similarity[0]) / temperature)
    same = label[:, None] == label[None]
    votes = jnp.where(same, weight[None], 0.0).sum(axis=1)  # the votes for the class of each neighbour
    has_true_class = label == truth
    true_votes = jnp.where(has_true_class, votes, -jnp.inf).max()
    is_first_of_class = same.argmax(axis=1) == jnp.arange(len(label))  # counts each class once
    is_ahead = (votes > true_votes) | ((votes == true_votes) & (label < truth))
    rank = (is_ahead & is_first_of_class & ~has_true_class & (label >= 0)).sum()
    valid = has_true_class.any() & ~jnp.isnan(similarity).any()
    return jnp.stack([(rank < top) & valid for top in TOPS])
