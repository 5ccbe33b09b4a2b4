"""Runs the task as a user does, and compares it with scikit-learn's average precision and rankings by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import extraction
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import retrieval
from tests.conftest import tiny


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('retrieval',), 'random'
    config.data.update(name=str(folder), probe_train='train')
    config.retrieval.update({'batch_size': 12, **options})
    return config


def test_scores_of_a_ranking_equal_those_computed_by_hand():
    angles = np.array([0.0, 0.5, 0.1, 0.3, 0.3])  # angles to the query: the order is 0, 2, 3, 4, 1
    gallery = jnp.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1), jnp.float32)
    labels, query = jnp.array([0, 1, 0, 1, 2]), jnp.array([1.0, 0.0])
    for label, expected in ((0, (1.0, 1, 1)), (1, ((1 / 3 + 2 / 5) / 2, 0, 1)), (2, (1 / 4, 0, 1)), (7, (0, 0, 0))):
        found = jax.jit(retrieval.score_query)(query, jnp.array(label), gallery, labels)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    found = jax.jit(retrieval.score_query)(query * jnp.nan, jnp.array(0), gallery, labels)
    np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(('mapping', 'count'), [('jit', 4), pytest.param('pmap', 3, marks=pytest.mark.slow)])
def test_average_precisions_equal_scikit_learns(mapping, count, photograph_folder, tmp_path):
    config, devices = small(photograph_folder), Devices(mapping, jax.devices()[:count])
    variables = artifacts.select_discriminator(
        loop.make_initial_state(artifacts, config, Devices('jit'), None).variables
    )
    network = Network('seed 0', lambda: {kind: {'discriminator': tree} for kind, tree in variables.items()})
    run = Run(config, tmp_path, devices, splits.Datasets(config))
    found = retrieval.evaluate(run, run.data(retrieval), Entry('retrieval/random', network, '', {}, ('random',)))
    assert (found['train'], found['test']) == (48, 20)
    extract = extraction.make_extractor(config, devices, 0, unit_length=True)
    (gallery, labels), (queries, truth) = (
        extraction.collect_features(lambda batch: extract(variables, batch), run.datasets[name].eval_batches(16))
        for name in ('probe_train', 'test')
    )
    for layer, row in found['layers'].items():
        similarity = queries[layer] @ gallery[layer].T
        same = truth[:, None] == labels[None]
        expected = np.mean([average_precision_score(*pair) for pair in zip(same, similarity)])
        assert row['map'] == pytest.approx(100 * expected, abs=0.01)
        order = np.argsort(-similarity, axis=1, kind='stable')
        for k in (1, 10):
            hit = np.take_along_axis(same, order, axis=1)[:, :k].any(axis=1)
            assert row['recall'][str(k)] == pytest.approx(100 * hit.mean())


def test_a_run_writes_its_table_and_does_not_run_again(photograph_folder, tmp_path, monkeypatch):
    config = configuration.check(small(photograph_folder, max_train=30, max_test=15, max_values=64))
    found = pipeline.run(config, tmp_path)
    row = found['retrieval']['random']
    assert (row['train'], row['test']) == (30, 15)
    text = (tmp_path / 'results.txt').read_text()
    assert 'Retrieval with frozen features' in text
    assert f'{row["layers"]["conv5"]["map"]:.2f}' in text
    monkeypatch.setattr(splits, 'load', None)
    assert pipeline.run(config, tmp_path) == found


def test_a_gallery_that_exceeds_the_memory_is_refused_and_nothing_is_written(photograph_folder, tmp_path):
    config = small(photograph_folder)
    config.data.memory_limit_gb = 1e-6
    with pytest.raises(configuration.ConfigError, match=r'48 train images, .*: set retrieval.max_train=\d+ or less'):
        pipeline.run(configuration.check(config), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()
