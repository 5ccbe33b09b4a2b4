"""Runs the task as a user does, on crops of real photographs with a small network."""

import re
from functools import partial

import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import extraction
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import knn
from tests.conftest import tiny


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('knn',), 'random'
    config.data.update(name=str(folder), probe_train='train')
    config.knn.update({'neighbours': (3, 10, 200), 'batch_size': 10, **options})
    return config


@pytest.fixture(scope='module')
def datasets(photograph_folder):
    config = small(photograph_folder)
    return {key: splits.load(config.data, name, seed=0) for key, name in (('probe_train', 'train'), ('test', 'test'))}


@pytest.fixture(scope='module')
def variables(photograph_folder):
    return artifacts.select_discriminator(
        loop.make_initial_state(artifacts, small(photograph_folder), Devices('jit'), None).variables
    )


@pytest.mark.parametrize(('mapping', 'count'), [('jit', 4), pytest.param('pmap', 3, marks=pytest.mark.slow)])
def test_accuracies_equal_scikit_learns(mapping, count, datasets, variables, photograph_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(knn, 'BLOCK', 20)  # three blocks, the last of them not full
    monkeypatch.setattr(knn, 'QUERIES', 3)
    config, devices = small(photograph_folder), Devices(mapping, jax.devices()[:count])
    network = Network('seed 0', lambda: {kind: {'discriminator': tree} for kind, tree in variables.items()})
    run = Run(config, tmp_path, devices, splits.Datasets(config))
    found = knn.evaluate(run, run.data(knn), Entry('knn/random', network, '', {}, ('random',)))
    assert (found['train'], found['test']) == (48, 20)
    extract = partial(extraction.make_extractor(config, devices, 0), variables)
    (bank, labels), (queries, truth) = (
        extraction.collect_features(extract, datasets[name].eval_batches(16)) for name in ('probe_train', 'test')
    )
    for layer, row in found['layers'].items():
        assert list(row) == ['3', '10', '200']
        for k in (3, 10, 48):
            model = KNeighborsClassifier(
                k, metric='cosine', algorithm='brute', weights=lambda distance: np.exp((1 - distance) / 0.1)
            ).fit(bank[layer], labels)
            result = row['200' if k == 48 else str(k)]  # k = 200: all 48 examples vote
            assert result['correct'] == (model.predict(queries[layer]) == truth).sum()
            assert result['count'] == 20


def test_a_run_writes_its_table(photograph_folder, tmp_path):
    config = small(photograph_folder, max_train=30, max_test=15, max_values=64)
    found = pipeline.run(configuration.check(config), tmp_path)
    assert set(found['knn']) == {'random'}  # an untrained network is not listed as 'learned'
    row = found['knn']['random']
    assert (row['train'], row['test'], row['layers']['conv5']['3']['count']) == (30, 15, 15)
    text = (tmp_path / 'results.txt').read_text()
    assert re.search(r'layer +\| +k \| random \| +top 5 ', text)
    assert 'on frozen features' in text
    assert re.search(rf'\| conv3 +\| +10 \| +{row["layers"]["conv3"]["10"]["accuracy"]:.2f} ', text)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'data.memory_limit_gb': 1e-4, 'knn.max_values': 64},
            r'knn needs 0.0 GB for 20 test images, .*=0.0001: set knn.max_test=\d+ or less',
        ),
        ({'knn.neighbours': (0,)}, 'knn.neighbours='),
    ],
)
def test_invalid_settings_are_refused_and_nothing_is_written(changes, message, photograph_folder, tmp_path):
    config = small(photograph_folder)
    config.update_from_flattened_dict(changes)
    with pytest.raises(configuration.UserError, match=message):
        pipeline.run(configuration.check(config), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_images_without_labels_are_refused(photograph_folder, tmp_path):
    (tmp_path / 'data' / 'test').mkdir(parents=True)
    (tmp_path / 'data' / 'train').symlink_to(photograph_folder / 'train')
    for n, source in enumerate((photograph_folder / 'test' / 'coffee').iterdir()):
        (tmp_path / 'data' / 'test' / f'{n}.png').symlink_to(source)
    with pytest.raises(splits.DataError, match=r'has images without labels, but knn needs'):
        pipeline.run(configuration.check(small(tmp_path / 'data')), tmp_path / 'run')


def test_computed_sizes_equal_those_of_the_features(config, variables, batch):
    for most in (0, 64):
        maps, _ = extraction.make_extractor(config, Devices('jit'), most)(variables, {**batch, 'label': batch['index']})
        assert extraction.compute_sizes(config, most) == {layer: x.shape[1] for layer, x in maps.items()}
