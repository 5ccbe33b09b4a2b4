import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.transfer.voc.segmentation import stage


def test_each_image_counts_alike_whatever_is_void_in_it():
    scores = jax.random.normal(jax.random.key(0), (3, 4, 5, 6))
    labels = np.random.default_rng(0).integers(0, 6, (3, 4, 5)).astype(np.uint8)
    labels[0, 1:] = labels[1] = 255
    entropy, right = stage.pixel_losses(scores, jnp.asarray(labels))
    chances = np.asarray(jax.nn.log_softmax(scores), np.float64)
    for n in (0, 2):
        known = labels[n] != 255
        pairs = list(zip(chances[n][known], labels[n][known]))
        assert entropy[n] == pytest.approx(np.mean([-row[label] for row, label in pairs]), rel=1e-5)
        assert right[n] == pytest.approx(np.mean([row.argmax() == label for row, label in pairs]))
    assert entropy[1] == right[1] == 0
    gradient = jax.grad(lambda x: stage.pixel_losses(x, jnp.asarray(labels))[0].sum())(scores)
    assert not gradient[1].any()
    assert not gradient[0, 1:].any()
