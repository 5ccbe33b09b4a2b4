"""The nearest neighbours of queries in a bank that comes in blocks, so that it may be of any size, and their votes.

Each neighbour of the first k votes for its class with the weight exp(similarity / temperature).

| what is equal | what counts |
|---|---|
| similarities | the example that came first is the nearer |
| votes of classes | the class of the lower number comes first |

A class without any vote is not among the first five, and a query that has a neighbour at no number is right about
nothing. If the bank has fewer than k examples, all vote.

Source: Wu et al., CVPR 2018 (arXiv 1805.01978), section 3.4, whose temperature is 0.07; facebookresearch/vissl has 0.1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

TOPS = (1, 5)
VOTING = 64  # queries at a time whose neighbours are compared with one another


class Nearest(NamedTuple):
    """The nearest neighbours of each query so far, nearest first."""

    similarity: Float32[Array | np.ndarray, 'B K']  # the cosine; -inf where there is none yet
    label: Int32[Array | np.ndarray, 'B K']  # -1 where there is none yet


def make_empty(queries: int, k: int) -> Nearest:
    """Returns the neighbours of so many queries in an empty bank."""
    return Nearest(np.full((queries, k), -np.inf, np.float32), np.full((queries, k), -1, np.int32))


def merge(
    nearest: Nearest,
    queries: Float32[Array | np.ndarray, 'B D'],
    bank: Float32[Array | np.ndarray, 'N D'],
    labels: Int32[Array | np.ndarray, ' N'],
) -> Nearest:
    """Returns the nearest neighbours among those there were and the next examples of the bank.

    Args:
      nearest: those so far.
      queries: of length 1.
      bank: the next examples, of length 1.
      labels: their classes, -1 for what is no example.
    """
    similarity = jnp.einsum('bd,nd->bn', queries, bank, precision='highest')
    similarity = jnp.where(labels[None] >= 0, similarity, -jnp.inf)
    both = jnp.concatenate([nearest.similarity, similarity], axis=1)
    classes = jnp.concatenate([nearest.label, jnp.broadcast_to(labels[None], similarity.shape)], axis=1)
    first, places = jax.lax.top_k(both, nearest.similarity.shape[1])  # of equals the first
    return Nearest(first, jnp.take_along_axis(classes, places, axis=1))


def vote(
    nearest: Nearest, labels: Int32[Array | np.ndarray, ' B'], *, ks: Sequence[int], temperature: float
) -> Bool[Array, 'B _ 2']:
    """Returns for each query and k whether its class comes first by the votes, and whether it is among five.

    Args:
      nearest: the neighbours, at least max(ks) of them.
      labels: the queries' classes.
      ks: how many vote.
      temperature: see above.
    """

    def judge(query):
        (similarity, label), truth = query
        return jnp.stack([_judge(similarity[:k], label[:k], truth, temperature) for k in ks])

    return jax.lax.map(judge, (nearest, labels), batch_size=VOTING)


def _judge(similarity, label, truth, temperature):
    """Returns whether the class `truth` is the first, and one of five, by the votes of a query's neighbours."""
    weight = jnp.exp((similarity - similarity[0]) / temperature)  # in proportion, and never too large; 0 of -inf
    same = label[:, None] == label[None]
    votes = jnp.where(same, weight[None], 0.0).sum(axis=1)  # of each neighbour's class
    own = label == truth
    of_truth = jnp.where(own, votes, -jnp.inf).max()
    first_of_class = same.argmax(axis=1) == jnp.arange(len(label))
    ahead = (votes > of_truth) | ((votes == of_truth) & (label < truth))
    rank = (ahead & first_of_class & ~own & (label >= 0)).sum()
    valid = own.any() & ~jnp.isnan(similarity).any()
    return jnp.stack([(rank < top) & valid for top in TOPS])
