import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from artifacts_jax.exchange import exports, images, loaders
from artifacts_jax.pretraining import artifacts

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
UNIT = PIXELS / 255


@pytest.fixture(scope='module')
def export(stage_states, tmp_path_factory):
    from tests.conftest import tiny

    folder, state = tmp_path_factory.mktemp('export'), stage_states[artifacts]
    exports.save(folder, state.variables, tiny(), networks=('trunk',))
    return folder


def test_features_do_not_depend_on_the_type_of_the_images(export):
    features = loaders.load_features(export)
    expected = features(PIXELS)['conv5']
    for kind in (np.int16, np.uint16, np.int32, np.int64, np.uint64):
        np.testing.assert_array_equal(features(PIXELS.astype(kind))['conv5'], expected)
    for inputs in (list(PIXELS), PIXELS.tolist(), [Image.fromarray(x) for x in PIXELS], jnp.asarray(PIXELS)):
        np.testing.assert_array_equal(features(inputs)['conv5'], expected)
    for kind in (np.float32, np.float64):
        np.testing.assert_allclose(features((2 * UNIT - 1).astype(kind))['conv5'], expected, atol=1e-5)
    unit, bytes_ = (loaders.load_features(export, value_range=r) for r in ((0, 1), (0, 255)))
    np.testing.assert_allclose(unit(UNIT)['conv5'], expected, atol=1e-5)
    np.testing.assert_allclose(unit(UNIT.astype(np.float16))['conv5'], expected, atol=2e-2)
    np.testing.assert_allclose(bytes_(PIXELS.astype(float))['conv5'], expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(features)(PIXELS)['conv5'], expected, atol=1e-5)
    np.testing.assert_allclose(features(PIXELS[:1])['conv5'], expected[:1], atol=1e-5)


LIKE = r'expected images \[B, H, W, 3\]'


@pytest.mark.parametrize(
    ('inputs', 'message'),
    [
        (PIXELS[0], rf'shape \[16, 16, 3\]: {LIKE}.*images\[None\]'),
        (Image.fromarray(PIXELS[0]), r'images\[None\]'),
        (PIXELS[..., 0], rf'shape \[4, 16, 16\]: {LIKE}'),
        (PIXELS[..., :1], r'three times: images.repeat\(3, axis=-1\)'),
        (PIXELS.transpose(0, 3, 1, 2), r'images.transpose\(0, 2, 3, 1\)'),
        (np.zeros((2, 16, 16, 4), np.uint8), r'images\[\.\.\., :3\]'),
        (PIXELS[None], r'shape \[1, 4, 16, 16, 3\]'),
        (PIXELS[:0], r'shape \[0, 16, 16, 3\].*at least one'),
        (PIXELS[:, :0], r'at least one'),
        ([PIXELS[0], PIXELS[1, :8]], rf'list cannot be converted to an array .*{LIKE}.*all of the same size'),
        ([], r'shape \[0\]'),
        (None, 'images of shape'),
        ('cat.jpg', 'images of shape'),
        (PIXELS > 5, 'images of type bool'),
        (PIXELS.astype(complex), 'images of type complex128'),
        (PIXELS.astype(object), 'images of type object'),
        (PIXELS.astype(np.int8), 'int8 with values from -.*: integers are values from 0 to 255'),
        (PIXELS.astype(np.uint16) * 16, 'uint16 with values from .*: integers are values from 0 to 255'),
        (PIXELS.astype(np.float32), r'float32 with values from 0 to 255: .* lie in \[-1, 1\], or load with'),
        (jnp.asarray(PIXELS, jnp.bfloat16), r'bfloat16 with values from 0 to 25.: .* lie in \[-1, 1\]'),
        (2 * UNIT, r'lie in \[-1, 1\]'),
        (np.where(PIXELS == 7, np.nan, 0.0), r'values from nan to nan'),
        (np.where(PIXELS == 7, np.inf, 0.0), r'values from 0 to inf'),
    ],
)
def test_ambiguous_images_raise_an_error(export, inputs, message):
    with pytest.raises(ValueError, match=message):
        loaders.load_features(export)(inputs)


@pytest.mark.parametrize('value_range', [(1, 0), (0,), 1, 'unit', (0, np.inf), (0, np.nan), None])
def test_a_range_is_two_numbers(unchecked, export, value_range):
    with pytest.raises(ValueError, match=r'expected \(low, high\)'):
        loaders.load_features(export, value_range=value_range)


def test_images_without_negative_values_give_a_warning(export):
    with pytest.warns(UserWarning, match=r'in \[0, 1\], load with value_range=\(0, 1\)'):
        loaders.load_features(export)(UNIT)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        loaders.load_features(export, value_range=(0, 1))(UNIT)


def test_a_classifier_needs_images_of_the_training_size():
    with pytest.raises(ValueError, match='images of 16 x 16 pixels: the classifier was trained on 32 x 32'):
        images.to_network(PIXELS, size=32)


@pytest.mark.parametrize(
    ('inputs', 'advice'),
    [
        (np.zeros((4, 5, 4)), r'of shape \[4, 5, 4\]: expected one image .* drop the alpha channel: image\[..., :3\]'),
        (np.zeros((4, 5, 1)), r'repeat the grey channel three times: image\.repeat'),
        (np.zeros((3, 5, 7)), r'put the channels last: image\.transpose\(1, 2, 0\)'),
        (np.zeros((1, 4, 5, 3)), r'of shape \[1, 4, 5, 3\]: .*; pass the images one by one'),
        (np.zeros((0, 5, 3)), r'of shape \[0, 5, 3\]: expected one image'),
        ('a.png', r'of shape \[\]: expected one image'),
        ([[1, 2], [3]], 'list cannot be converted to an array .*: expected one image'),
    ],
)
def test_to_pixels_needs_one_image(inputs, advice):
    with pytest.raises(ValueError, match=advice):
        images.to_pixels(inputs)


def test_a_damaged_export_is_not_loaded(export, tmp_path):
    import json
    import shutil

    shutil.copytree(export, tmp_path / 'export')
    path = tmp_path / 'export' / 'config.json'
    description = json.loads(path.read_text())
    assert set(description['fingerprints']) == {'trunk'}
    description['fingerprints']['trunk'] = '00000000'
    path.write_text(json.dumps(description))
    with pytest.raises(exports.ExportError, match='trunk is damaged or belongs to another export'):
        loaders.load_features(tmp_path / 'export')
