import io

import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict

from artifacts_jax.data import masked, tfds_data
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import records
from tests.transfer import masked_folder as made
from tests.transfer.voc import trees


@pytest.fixture
def folder(tmp_path):
    return made.folder(tmp_path / 'parks')


def test_a_folder_of_images_and_masks(folder, config):
    config.data.update(name=str(folder), probe_train='training', test='validation[:50%]')
    opened = masked.open_splits(config)
    assert (len(opened.train), len(opened.test), opened.names) == (6, 1, ())
    record = opened.train[5]
    assert (record.name, record.read_image().shape) == ('town/2.png', (12, 16, 3))
    assert set(np.unique(record.read_mask())) == {1, 2, 255}
    mask, classes = folder / 'masks' / 'training' / 'town' / '2.png', record.read_mask()
    mask.rename(mask.with_suffix('.PNG'))
    np.testing.assert_array_equal(masked.open_splits(config).train[5].read_mask(), classes)


def test_voc(tmp_path, config):
    mask = np.array([[0, 8], [255, 8]], np.uint8).repeat(6, axis=0).repeat(8, axis=1)
    for name in ('a', 'b'):
        trees.add(tmp_path, name, mask=mask)
    trees.listed(tmp_path, 'train', 'a', 'b', lists='Segmentation')
    config.data.update(name=str(tmp_path), probe_train='train', test='train[:1]')
    opened = masked.open_splits(config)
    assert (len(opened.train), len(opened.test), opened.names[8]) == (2, 1, 'cat')


def test_a_tfds_data_set(tmp_path, config, monkeypatch):
    pytest.importorskip('tensorflow_datasets')
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    for key, value in (('image', made.photograph(0)), ('segmentation_mask', made.mask(0))):
        file = io.BytesIO()
        PIL.Image.fromarray(value).save(file, 'PNG')
        example.features.feature[key].bytes_list.value.append(file.getvalue())
    info = ConfigDict({'features': {'image': 0, 'segmentation_mask': 0}, 'splits': {'train': {'num_examples': 3}}})
    info.available_file_formats = lambda: {}
    built = type('Built', (), {'info': info, 'data_dir': 'somewhere'})()
    monkeypatch.setattr(tfds_data, 'load_builder', lambda config: built)
    monkeypatch.setattr(tfds_data, 'open_records', lambda built, split: [example.SerializeToString()] * 3)
    config.data.update(name='pets', probe_train='train[:2]', test='train[2:]')
    opened = masked.open_splits(config)
    assert (len(opened.train), len(opened.test)) == (2, 1)
    np.testing.assert_array_equal(opened.train[1].read_mask(), made.mask(0))
    built.info.features['name'] = 0
    config.segmentation_probe.mask_key = 'name'
    with pytest.raises(
        DataError, match=r"^the feature 'name' is not an image: set segmentation_probe.mask_key or data"
    ):
        masked.open_splits(config).train[0].read_mask()
    config.segmentation_probe.mask_key = 'mask'
    with pytest.raises(
        DataError,
        match=r'segmentation_probe.mask_key=mask: pets has no such feature; expected one of: image, name, segm',
    ):
        masked.open_splits(config)


def _without(folder):
    (folder / 'masks' / 'training' / 'town' / '1.png').unlink()


def _coloured(folder):
    PIL.Image.fromarray(made.photograph(0)).save(folder / 'masks' / 'training' / 'park' / '0.png')


def _small(folder):
    PIL.Image.fromarray(made.mask(0)[1:]).save(folder / 'masks' / 'training' / 'park' / '0.png')


def _damaged(folder):
    (folder / 'masks' / 'training' / 'park' / '0.png').write_bytes(b'nothing')


def _lossy(folder):
    PIL.Image.fromarray(made.mask(0)).save(folder / 'masks' / 'training' / 'park' / '0.png', 'JPEG')


def _shared(folder):
    PIL.Image.fromarray(made.photograph(0)).save(folder / 'images' / 'training' / 'park' / '0.jpg')


def _none(folder):
    (folder / 'masks').rename(folder / 'labels')


def _no_split(folder):
    (folder / 'images' / 'validation').rename(folder / 'images' / 'val')


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (_without, r'1 of 6 images of training have no mask, such as .*town/1\.png'),
        (_coloured, 'the Pillow mode is RGB; expected a palette'),
        (_small, 'has 11 x 16 pixels, but its image 12 x 16'),
        (_shared, r'2 images of training have the same mask .*park/0\.png: give each image its own name'),
        (_lossy, 'the format JPEG changes values: write the mask again as PNG'),
        (_damaged, r'park/0\.png: cannot be read'),
        (_none, 'has images, but no masks: expected'),
        (_no_split, "has no split 'validation'; it has: training, val"),
    ],
)
def test_invalid_data_is_a_one_line_error(folder, config, spoil, message):
    spoil(folder)
    config.data.update(name=str(folder), probe_train='training', test='validation')
    with pytest.raises(DataError, match=message) as refused:
        records.check_masks(masked.open_splits(config).train, 'training', classes=2)
    assert '\n' not in str(refused.value)
