import jax
import jax.numpy as jnp
import numpy as np

from artifacts_jax.transfer.voc.detection import stage

RANDOM = np.random.default_rng(0)
SCORES, LABELS = RANDOM.normal(size=(2, 5, 4)), RANDOM.integers(0, 4, (2, 5))
MASK = np.array([[True] * 5, [True, True, True, False, False]])
LABELS[~MASK] = 0
MOVES, TARGETS = 2 * RANDOM.normal(size=(2, 5, 4, 4)), RANDOM.normal(size=(2, 5, 4))


def arrays(*values):
    return [jnp.asarray(x, jnp.float32 if x.dtype == float else None).astype(
        jnp.int32 if x.dtype.kind == 'i' else bool if x.dtype == bool else jnp.float32) for x in values]  # fmt: skip


def test_the_cross_entropy_is_summed_over_regions():
    by_hand = 0.0
    for image, region in np.argwhere(MASK):
        row = SCORES[image, region]
        by_hand += np.log(np.exp(row).sum()) - row[LABELS[image, region]]
    np.testing.assert_allclose(stage.class_loss(*arrays(SCORES, LABELS, MASK)), by_hand, rtol=1e-5)


def test_boxes_are_judged_by_their_own_class_and_background_is_not():
    by_hand = 0.0
    for image, region in np.argwhere(LABELS > 0):
        for distance in abs(MOVES[image, region, LABELS[image, region]] - TARGETS[image, region]):
            by_hand += distance**2 / 2 if distance < 1 else distance - 0.5
    given = arrays(MOVES, TARGETS, LABELS)
    np.testing.assert_allclose(stage.box_loss(*given), by_hand, rtol=1e-5)
    gradient = np.asarray(jax.grad(stage.box_loss)(*given))
    assert abs(gradient).max() <= 1
    own = np.arange(4) == LABELS[..., None]
    assert not gradient[~own].any()
    assert not gradient[:, :, 0].any()
    assert gradient[own & (LABELS[..., None] > 0)].all()
