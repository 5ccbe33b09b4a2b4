import jax
import jax.numpy as jnp
import numpy as np

from artifacts_jax.transfer.voc.detection import stage

RANDOM = np.random.default_rng(0)
SCORES, LABELS = RANDOM.normal(size=(2, 5, 4)), RANDOM.integers(0, 4, (2, 5))
VALID = np.array([[True] * 5, [True, True, True, False, False]])
LABELS[~VALID] = 0
DELTAS, TARGETS = 2 * RANDOM.normal(size=(2, 5, 4, 4)), RANDOM.normal(size=(2, 5, 4))


def arrays(*values):
    return [jnp.asarray(x, jnp.float32 if x.dtype == float else None).astype(
        jnp.int32 if x.dtype.kind == 'i' else bool if x.dtype == bool else jnp.float32) for x in values]  # fmt: skip


def test_the_class_loss_is_summed_over_valid_rois():
    by_hand = 0.0
    for image, roi in np.argwhere(VALID):
        row = SCORES[image, roi]
        by_hand += np.log(np.exp(row).sum()) - row[LABELS[image, roi]]
    np.testing.assert_allclose(stage.class_loss(*arrays(SCORES, LABELS, VALID)), by_hand, rtol=1e-5)


def test_the_box_loss_uses_the_deltas_of_the_roi_class_and_no_background():
    by_hand = 0.0
    for image, roi in np.argwhere(LABELS > 0):
        for distance in abs(DELTAS[image, roi, LABELS[image, roi]] - TARGETS[image, roi]):
            by_hand += distance**2 / 2 if distance < 1 else distance - 0.5
    arguments = arrays(DELTAS, TARGETS, LABELS)
    np.testing.assert_allclose(stage.box_loss(*arguments), by_hand, rtol=1e-5)
    gradient = np.asarray(jax.grad(stage.box_loss)(*arguments))
    assert abs(gradient).max() <= 1
    own = np.arange(4) == LABELS[..., None]
    assert not gradient[~own].any()
    assert not gradient[:, :, 0].any()
    assert gradient[own & (LABELS[..., None] > 0)].all()
