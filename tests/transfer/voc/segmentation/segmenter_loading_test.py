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
    """(network, variables, folder of the export)."""
    variables = made.segmenter(config)
    segmenter.save(tmp_path / 'export', variables, config, {'stage': 'voc_segmentation/test', 'step': 1})
    return segmenter.make_network(config), variables, tmp_path / 'export'


def test_a_loaded_segmenter_equals_the_exported_one(exported, image):
    model, variables, folder = exported
    segment = artifacts_jax.load_segmenter(folder)
    scores = jax.jit(model.apply)({'params': variables['params']}, scale_pixels(image[None]))
    expected = np.asarray(scores.argmax(-1)[0])
    labels = segment(image)
    assert labels.shape == (20, 24)
    assert (labels == expected).mean() > 0.99  # rounding may break ties of scores differently
    assert len(np.unique(labels)) > 1
    in_range = artifacts_jax.load_segmenter(folder, value_range=(0, 1))(jnp.asarray(image / np.float32(255)))
    np.testing.assert_array_equal(in_range, labels)


def test_a_wrong_image_or_export_is_an_error(exported, image, unchecked):
    folder = exported[2]
    with pytest.raises(ValueError, match=r'shape \[1, 20, 24, 3\]: expected one image \[H, W, 3\]'):
        artifacts_jax.load_segmenter(folder)(image[None])
    with pytest.raises(exports.ExportError, match=r'no detector, but a segmenter: use artifacts_jax\.load_segmenter'):
        artifacts_jax.load_detector(folder)
