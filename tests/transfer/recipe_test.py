"""Runs the STL-10 recipe at full width on synthetic data: the STL-10 builder of tfds, with a few noise images."""

from functools import partial

import jax
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.configs import stl10 as recipe
from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.training import report
from artifacts_jax.transfer import stl10


@pytest.fixture
def synthetic_stl10(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    builder = tfds.builder('stl10', data_dir=tmp_path, try_gcs=False)

    def examples(count, labelled, random):
        for n in range(count):
            label = int(random.integers(10)) if labelled else -1
            yield n, {'image': random.integers(0, 256, (96, 96, 3), dtype=np.uint8), 'label': label}

    def split_generators(dl_manager):
        random = np.random.default_rng(0)
        splits = {'train': (40, True), 'test': (20, True), 'unlabelled': (24, False)}
        return {split: examples(*size, random) for split, size in splits.items()}

    monkeypatch.setattr(builder, '_split_generators', split_generators)
    builder.download_and_prepare()
    return tmp_path


@pytest.mark.nightly
def test_every_line_of_the_recipe_runs(synthetic_stl10, tmp_path, monkeypatch):
    config = recipe.get_config()
    config.data.data_dir = str(synthetic_stl10)
    config.stages = (*config.stages, 'stl10')
    config.batch_size = config.stl10.batch_size = 8
    config.stl10.epochs = 1
    config.autoencoder.steps = config.artifacts.steps = 2
    config.monitor.update(bank=16, queries=16, neighbours=3)
    config.probe.update(iterations=5, batch_size=20)
    config.model.hidden = config.stl10.hidden = 32
    config.update(log_every=1, eval_examples=8)
    monkeypatch.setattr(pipeline, 'Devices', partial(Devices, devices=jax.devices()[:1]))
    results = pipeline.run(configuration.check(config), tmp_path / 'run')
    assert all(row['count'] == 20 for row in results['probe']['learned'].values())
    for protocol in ('linear', 'finetune'):
        assert results['stl10'][protocol]['all']['count'] == 20
    rows = report.read_metrics(tmp_path / 'run' / 'artifacts' / 'metrics.jsonl')
    assert all(np.isfinite(x) for row in rows for x in row.values())


@pytest.mark.slow
@pytest.mark.parametrize('shards', [1, 3])
def test_folds_count_the_original_order_for_any_shards(tmp_path, monkeypatch, shards):
    import tensorflow_datasets as tfds

    builder = tfds.builder('stl10', data_dir=tmp_path, try_gcs=False)

    def example(n):  # the colour encodes the index
        return n, {'image': np.full((96, 96, 3), (n // 100, n % 100, 0), np.uint8), 'label': n % 10}

    generated = {split: map(example, range(count)) for split, count in {'train': 250, 'test': 30}.items()}
    monkeypatch.setattr(builder, '_split_generators', lambda dl_manager: generated)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))
    assert builder.info.splits['train'].num_shards == shards

    config = recipe.get_config()
    config.data.data_dir = str(tmp_path)
    config.stl10.update(folds=str(tmp_path / 'fold_indices.txt'), num_folds=2, fold_size=100)
    expected = [np.random.default_rng(n).permutation(250)[:100] for n in range(2)]
    (tmp_path / 'fold_indices.txt').write_text(''.join(' '.join(map(str, fold)) + '\n' for fold in expected))
    dataset = splits.load(config.data, 'train', seed=0)
    order = splits.compute_original_order(config.data, 'train')
    assert (order != np.arange(250)).any()
    np.testing.assert_array_equal(dataset.images[:, 0, 0, 0] * 100 + dataset.images[:, 0, 0, 1], order)
    datasets = splits.Datasets(config)
    datasets.update(probe_train=dataset, test=dataset)
    for fold, indices in zip(stl10.open_data(config, datasets).folds, expected):
        subset = dataset.subset(fold)
        np.testing.assert_array_equal(subset.images[:, 0, 0, 0] * 100 + subset.images[:, 0, 0, 1], indices)
        np.testing.assert_array_equal(subset.labels, indices % 10)
    with pytest.raises(splits.DataError, match=r"'train\[:50%\]': the original order of STL-10 is only known .*train"):
        splits.compute_original_order(config.data, 'train[:50%]')
