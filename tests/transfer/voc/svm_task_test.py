"""Runs the task as a user does, on a small VOCdevkit of coloured images with a small network."""

import jax
import numpy as np
import PIL.Image
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop
from artifacts_jax.training.evaluation import Run
from artifacts_jax.transfer.layerwise import presets
from artifacts_jax.transfer.layerwise.heads import downsample
from artifacts_jax.transfer.voc import svm_task
from tests.conftest import tiny
from tests.transfer.voc import trees

COLOURS = {'cat': (200, 60, 40), 'dog': (40, 60, 200), '': (90, 90, 90)}


@pytest.fixture(scope='module')
def devkit(tmp_path_factory):
    """Returns a VOCdevkit of 50 training and 50 test images of 12 x 16: red images of cats, blue images of dogs."""
    year = tmp_path_factory.mktemp('voc') / 'VOCdevkit' / 'VOC2007'
    random = np.random.default_rng(0)
    for split in ('trainval', 'test'):
        names = [f'{split}{n}' for n in range(50)]
        for n, name in enumerate(names):
            what = ('cat', 'dog', '', '', '')[n % 5]
            trees.add(year, name, trees.annotation(*([trees.an_object(what)] if what else [])))
            noise = random.normal(scale=30, size=(12, 16, 3))
            pixels = np.clip(np.array(COLOURS[what])[None, None] + noise, 0, 255).astype(np.uint8)
            PIL.Image.fromarray(pixels).save(year / 'JPEGImages' / f'{name}.png')
        trees.listed(year, split, *names)
    return year.parent


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('voc_svm',), 'random'
    config.data.update(name=str(folder), train='trainval', probe_train='trainval')
    small = {'crop_size': 16, 'costs': (0.1, 1.0), 'shots': (1, 2), 'draws': 2, 'batch_size': 12}
    config.voc_svm.update({**small, **options})
    return config


@pytest.mark.slow
def test_a_run_writes_its_table_and_computes_only_missing_rows(devkit, tmp_path, capsys):
    config = small(devkit)
    found = pipeline.run(configuration.check(config), tmp_path)
    parts = found['voc_svm']['conv5']
    assert (parts['all']['train'], parts['low_shot']['test']) == (50, 50)
    assert {name for name, value in parts['all']['ap'].items() if value is not None} == {'cat', 'dog'}
    assert parts['all']['map'] > 90
    assert parts['low_shot']['shots']['2']['mean'] > 60
    text = (tmp_path / 'results.txt').read_text()
    assert f'| {parts["all"]["map"]:.2f} | {parts["low_shot"]["shots"]["1"]["mean"]:.2f} +- ' in text.replace('  ', ' ')
    capsys.readouterr()
    config.voc_svm.layers, config.voc_svm.parts = ('conv2', 'conv5'), ('all',)
    again = pipeline.run(config, tmp_path)
    assert again['voc_svm']['conv5'] == parts
    assert set(again['voc_svm']['conv2']) == {'all'}
    assert 'conv5/all' not in capsys.readouterr().out


def test_features_are_those_of_the_trunk_pooled_by_the_windows_of_vissl(devkit, tmp_path):
    config, devices = small(devkit), Devices('jit')
    variables = artifacts.select_discriminator(loop.make_initial_state(artifacts, config, devices, None).variables)
    trunk = {kind: tree['trunk'] for kind, tree in variables.items()}
    run = Run(config, tmp_path, devices, splits.Datasets(config))
    records = run.data(svm_task).records[1]
    features, labels = svm_task._collect_features(
        run, svm_task._make_extractor(config, devices, ('conv1', 'conv5')), trunk, records
    )
    np.testing.assert_array_equal(labels, [record.labels for record in records])
    squashed = np.stack(
        [PIL.Image.fromarray(record.read_image()).resize((16, 16), PIL.Image.Resampling.BILINEAR) for record in records]
    )
    model = architecture.make_trunk(config, geometry=alexnet.GEOMETRIES['torch'])
    _, maps = jax.jit(model.apply)(trunk, squashed.astype(np.float32) / 127.5 - 1)
    for layer, n in (('conv1', 0), ('conv5', 4)):
        expected = downsample(maps[layer], presets.PRESETS['vissl'], n).reshape(50, -1)
        np.testing.assert_allclose(features[layer], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'data.test': 'val'}, r"image list .*val.txt of 'val' does not exist; the lists are: test, trainval"),
        ({'voc_svm.crop_size': 20, 'voc_svm.view': 'centre'}, 'crop_size=20: larger than the images, data.size=16'),
        ({'voc_svm.shots': (1, 16)}, '10 training images with the class cat, but k = 16 .* voc_svm.shots to at most 2'),
        ({'voc_svm.layers': ('conv6',)}, r"no 'conv6', the nearest is 'conv5'"),
    ],
)
def test_invalid_settings_are_refused_and_nothing_is_written(changes, message, devkit, tmp_path):
    config = small(devkit)
    config.update_from_flattened_dict(changes)
    with pytest.raises(configuration.UserError, match=message):
        pipeline.run(configuration.check(config), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()
