import jax
import jax.numpy as jnp
import numpy as np
import pytest

import artifacts_jax
from artifacts_jax.exchange import exports
from artifacts_jax.models.discriminator import scale_pixels
from artifacts_jax.transfer.voc.segmentation import segmenter
from tests.transfer.voc.segmentation import made


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


@pytest.fixture
def exported(config, tmp_path):
    """(the network, its variables, its export)."""
    variables = made.segmenter(config)
    segmenter.save(tmp_path / 'export', variables, config, {'stage': 'voc_segmentation/test', 'step': 1})
    return segmenter.make_network(config), variables, tmp_path / 'export'


def test_a_loaded_segmenter_sees_what_the_trained_one_does(exported, image):
    model, variables, folder = exported
    segment = artifacts_jax.load_segmenter(folder)
    scores = jax.jit(model.apply)({'params': variables['params']}, scale_pixels(image[None]))
    expected = np.asarray(scores.argmax(-1)[0])
    found = segment(image)
    assert found.shape == (20, 24)
    assert (found == expected).mean() > 0.99  # equal scores may be rounded apart
    assert len(np.unique(found)) > 1
    in_range = artifacts_jax.load_segmenter(folder, value_range=(0, 1))(jnp.asarray(image / np.float32(255)))
    np.testing.assert_array_equal(in_range, found)


def test_what_is_no_image_or_no_segmenter_is_refused(exported, image, unchecked):
    folder = exported[2]
    with pytest.raises(ValueError, match=r'shape \[1, 20, 24, 3\]: expected one image \[H, W, 3\]'):
        artifacts_jax.load_segmenter(folder)(image[None])
    with pytest.raises(exports.ExportError, match=r'no detector, but a segmenter: use artifacts_jax\.load_segmenter'):
        artifacts_jax.load_detector(folder)
