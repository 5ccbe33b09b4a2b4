"""The task as a user runs it, on a folder that colours alone tell apart."""

import numpy as np
import PIL.Image
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data import splits
from artifacts_jax.data.errors import DataError
from artifacts_jax.transfer import segmentation_probe as task
from tests.conftest import tiny
from tests.transfer import masked_folder as made


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('segmentation_probe',), 'random'
    config.data.update(name=str(folder), probe_train='training', test='validation', workers=2)
    config.segmentation_probe.update(size=16, batch_size=4, pixels=60, held_out=0.3, **options)
    return config


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return made.folder(tmp_path_factory.mktemp('masked') / 'parks')


@pytest.mark.slow
def test_a_run_segments_classes(folder, tmp_path):
    config = small(folder)
    found = pipeline.run(configuration.check(config), tmp_path)
    row = found['segmentation_probe']['random']
    assert (row['train'], row['test']) == (6, 2)
    conv1 = row['layers']['conv1']
    assert conv1['miou'] > 70
    assert conv1['pixel_accuracy'] > 80
    assert conv1['iou']['0'] is None
    assert conv1['miou'] == pytest.approx((conv1['iou']['1'] + conv1['iou']['2']) / 2)
    assert '| conv5 |' in (tmp_path / 'results.txt').read_text()
    assert (tmp_path / 'figures' / 'segmentation_probe.png').is_file()


def test_images_in_both_splits_are_reported(folder, capsys):
    config = small(folder)
    task.open_data(config, splits.Datasets(config))
    config.data.update(probe_train='training[:4]', test='training[2:]')
    assert not capsys.readouterr().err
    task.open_data(config, splits.Datasets(config))
    assert 'warning: 2 of the 4 test images of training[2:] are also training images' in capsys.readouterr().err


def test_invalid_settings_are_refused_before_anything_is_written(folder, tmp_path):
    config = small(folder)
    config.data.probe_train = 'training[:1]'
    with pytest.raises(DataError, match='is one image, expected two or more'):
        pipeline.run(configuration.check(config), tmp_path / 'run')
    config.data.probe_train, config.segmentation_probe.max_train = 'training', 1
    with pytest.raises(DataError, match=r'is one image \(max_train\), expected two or more'):
        pipeline.run(configuration.check(config), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('split', 'values', 'message'),
    [
        ('training', (0, 255), 'training of .*: the pixels have one class; expected 2 or more; 255 means no class'),
        ('validation', (255, 255), 'validation of .*: the pixels have no class; expected 1 or more'),
    ],
)
def test_masks_without_enough_classes_are_refused(tmp_path, split, values, message):
    folder = made.folder(tmp_path / 'parks')
    for path in (folder / 'masks' / split).rglob('*.png'):
        PIL.Image.fromarray(np.where(made.mask(0) == 1, *values).astype(np.uint8)).save(path)
    with pytest.raises(DataError, match=message):
        pipeline.run(configuration.check(small(folder)), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()
