"""Runs the task as a user does, on crops of real photographs with a small network."""

import shutil

import jax
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop
from artifacts_jax.transfer.layerwise import stage, task
from tests import stopping
from tests.conftest import tiny

ONE = Devices('jit', jax.devices()[:1])


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('layerwise',), 'random'
    config.data.update(name=str(folder), probe_train='train')
    config.layerwise.update({'batch_size': 8, 'epochs': 1, 'crop_size': 14, **options})
    config.eval_every = 100
    return config


@pytest.fixture(scope='module')
def datasets(photograph_folder):
    config = small(photograph_folder)
    return {name: splits.load(config.data, name, seed=0) for name in ('train', 'test')}


@pytest.fixture(scope='module')
def trained(datasets, photograph_folder, tmp_path_factory):
    """Returns train(preset, devices, folder, **options) -> the last state."""

    def train(preset, devices=ONE, folder=None, **options):
        config = small(photograph_folder, preset=preset, **options)
        count = stage.make_counter(2, config, devices)
        training = stage.Stage(
            NAME='layerwise/test', num_images=datasets['train'].num_examples, num_classes=2, evaluate_fn=count
        )
        base = loop.make_initial_state(artifacts, config, devices, None).variables
        folder = folder or tmp_path_factory.mktemp('layerwise')
        return loop.run(training, config, folder, devices, datasets, base)

    return train


@pytest.mark.slow
@pytest.mark.parametrize('preset', ['zhang2016', 'asano'])  # both forms of momentum, two kinds of pooling
def test_presets_learn_to_classify_photographs(preset, datasets, trained, photograph_folder):
    config = small(photograph_folder, preset=preset)
    state = trained(preset, epochs=12 if preset == 'asano' else 4)  # the crops of asano show a smaller area
    right, count = stage.make_counter(2, config, ONE)(state.variables, datasets['test'])
    assert count == 20
    assert max(x[0, 0] for x in right.values()) >= 14
    assert all(x[0, 1] == 20 for x in right.values())  # with two classes, the top 5 always has the label
    assert set(state.params) == {'heads'}


@pytest.mark.nightly
def test_learning_rates_share_the_passes_and_nothing_else(trained):
    both = trained('vissl', rate_factors=(1.0, 0.1)).params['heads']
    alone = trained('vissl', rate_factors=(0.1,)).params['heads']
    for name, x in alone.items():
        np.testing.assert_allclose(x[0], both[name][1], rtol=1e-4, atol=1e-6)
        assert not np.allclose(both[name][0], both[name][1])


@pytest.mark.slow
def test_a_resumed_training_equals_a_whole_one_bit_for_bit(trained, tmp_path, monkeypatch):
    def train(folder):
        return trained('asano', folder=folder)

    stopping.equals_when_resumed(monkeypatch, train, tmp_path / 'whole', tmp_path / 'parts')


@pytest.mark.slow
def test_untrained_classifiers_of_zeros_have_no_correct_predictions(datasets, photograph_folder):
    config = small(photograph_folder, preset='zhang2016')
    base = loop.make_initial_state(artifacts, config, ONE, None).variables
    training = stage.Stage(NAME='layerwise/test', num_images=48, num_classes=2)
    state = training.init_state(jax.random.key(0), base, config=config)
    right, _ = stage.make_counter(2, config, ONE)(state.variables, datasets['test'])
    assert all((x[:, 0] == 0).all() for x in right.values())  # all logits are the same


@pytest.mark.slow
def test_a_run_writes_its_table(photograph_folder, tmp_path):
    folder = shutil.copytree(photograph_folder, tmp_path / 'photographs')
    (folder / 'train' / 'coffee' / 'empty.png').write_bytes(b'')
    config = small(folder, preset='deepcluster', ten_crop=True)
    config.data.loading = 'stream'
    found = pipeline.run(configuration.check(config), tmp_path)
    row = found['layerwise']['deepcluster']
    assert row['train'] == 48  # of 49
    assert row['layers']['conv3'][0]['count'] == row['ten_crop']['conv5'][0]['count'] == 20
    text = (tmp_path / 'results.txt').read_text()
    assert 'here, random network, deepcluster, ten crops' in text
    assert 'paper' not in text  # whose numbers are of ImageNet
    found['layerwise']['deepcluster']['dataset'] = 'imagenet2012'
    assert '| spot artifacts (the paper) |' in task.table(found).replace('  ', '')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'layerwise.crop_size': 17}, 'crop_size=17: larger than the images, data.size=16'),
        (
            {'layerwise.crop_size': 5},
            "crop_size=5: too small for the trunk; expected 6 pixels or more with the geometry 'caffe'",
        ),
    ],
)
def test_invalid_settings_are_refused_and_nothing_is_written(changes, message, photograph_folder, tmp_path):
    config = small(photograph_folder)
    config.update_from_flattened_dict(changes)
    with pytest.raises(configuration.UserError, match=message):
        pipeline.run(configuration.check(config), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_test_classes_without_training_images_are_refused(photograph_folder, tmp_path):
    for split, names in (('train', ('astronaut', 'coffee')), ('test', ('astronaut', 'tea'))):
        (tmp_path / 'data' / split).mkdir(parents=True)
        for name, source in zip(names, ('astronaut', 'coffee')):
            (tmp_path / 'data' / split / name).symlink_to(photograph_folder / split / source)
    with pytest.raises(splits.DataError, match=r'test of .* has images of the classes tea, but train of .* has none'):
        pipeline.run(configuration.check(small(tmp_path / 'data')), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_an_export_of_another_width_is_refused_by_name(stage_states, photograph_folder, tmp_path):
    config = small(photograph_folder)
    exports.save(tmp_path / 'export', stage_states[artifacts].variables, config, networks=('trunk',))
    config.pretrained, config.model.widths = str(tmp_path / 'export'), (4, 8, 8, 8, 12)
    here = r'model.widths: \(4, 8, 8, 8, 8\) in the export, \(4, 8, 8, 8, 12\) here'
    with pytest.raises(exports.ExportError, match=here + r"\nTo use it, add '--config.model.widths=\(4, 8, 8, 8, 8\)'"):
        pipeline.run(configuration.check(config), tmp_path / 'run')
