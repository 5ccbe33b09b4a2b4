"""The STL-10 recipe at full width, on a stand-in: tfds's own STL-10 builder, prepared with a few noise images."""

import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline, report
from configs import stl10


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
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


@pytest.mark.slow
def test_every_line_of_the_recipe_runs(stand_in, tmp_path):
    config = stl10.get_config()
    config.data.data_dir = str(stand_in)
    config.batch_size = 8
    config.autoencoder.steps = config.artifacts.steps = 2
    config.monitor.update(bank=16, queries=16, neighbours=3)
    config.probe.update(iterations=5, batch_size=20)
    config.update(log_every=1, eval_examples=8)
    results = pipeline.run(configuration.check(config), tmp_path / 'run')
    assert all(row['count'] == 20 for row in results['probe']['learned'].values())
    rows = report.read(tmp_path / 'run' / 'artifacts' / 'metrics.jsonl')
    assert all(np.isfinite(x) for row in rows for x in row.values())
