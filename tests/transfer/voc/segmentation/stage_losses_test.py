import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.transfer.voc.segmentation import stage


def test_losses_are_means_over_the_valid_pixels_of_each_image():
    scores = jax.random.normal(jax.random.key(0), (3, 4, 5, 6))
    labels = np.random.default_rng(0).integers(0, 6, (3, 4, 5)).astype(np.uint8)
    labels[0, 1:] = labels[1] = 255
    losses, accuracies = stage.pixel_losses(scores, jnp.asarray(labels))
    log_probabilities = np.asarray(jax.nn.log_softmax(scores), np.float64)
    for n in (0, 2):
        valid = labels[n] != 255
        pairs = list(zip(log_probabilities[n][valid], labels[n][valid]))
        assert losses[n] == pytest.approx(np.mean([-row[label] for row, label in pairs]), rel=1e-5)
        assert accuracies[n] == pytest.approx(np.mean([row.argmax() == label for row, label in pairs]))
    assert losses[1] == accuracies[1] == 0
    gradient = jax.grad(lambda x: stage.pixel_losses(x, jnp.asarray(labels))[0].sum())(scores)
    assert not gradient[1].any()
    assert not gradient[0, 1:].any()
