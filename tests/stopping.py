"""How tests end a run where one that is killed might end, and what its training must come to nevertheless."""

import jax
import numpy as np
import pytest

from artifacts_jax.data import ordered


class StopError(Exception):
    pass


def stop_before(monkeypatch, step, of=ordered.ArrayDataset):
    """Makes data sets of a class, by default those in memory, fail when they are asked for the batch of `step`."""
    original = of.batch

    def batch(self, asked, size):
        if asked == step:
            raise StopError
        return original(self, asked, size)

    monkeypatch.setattr(of, 'batch', batch)


def equals_when_resumed(monkeypatch, train, whole, parts, *, step=5, of=ordered.ArrayDataset):
    """Checks that train(folder) comes to the same state, bit for bit, if it is stopped before `step`; returns both."""
    expected = train(whole)
    with monkeypatch.context() as patch:
        stop_before(patch, step, of)
        with pytest.raises(StopError):
            train(parts)
    resumed = train(parts)
    for a, b in zip(leaves(expected), leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)
    return expected, resumed


def leaves(state):
    """The arrays of a state."""
    return [np.asarray(x) for x in jax.tree.leaves(state)]
