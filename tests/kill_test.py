"""A run that is killed again and again ends as one that was left alone. KILLS=30 makes it long."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from artifacts_jax import artifacts, autoencoder, report, train
from artifacts_jax import config as configuration
from artifacts_jax.parallel import Devices
from configs import default

ROOT = Path(__file__).parents[1]
KILLS = int(os.environ.get('KILLS', '4'))

CONFIG = """
from configs import default

def get_config():
    config = default.get_config()
    config.stages = ('autoencoder', 'artifacts')
    config.batch_size, config.data.size, config.data.name = 8, 16, {folder!r}
    config.model.update(
        image_size=16, encoder_widths=(4, 8, 8), widths=(4, 8, 8, 8, 8), kernels=(3,) * 5, conv1_stride=1, hidden=16
    )
    config.autoencoder.steps = config.artifacts.steps = 20
    config.monitor.update(bank=32, queries=16, neighbours=5)
    config.update(log_every=1, eval_every=5, figure_every=10, checkpoint_every=2, eval_examples=16)
    return config
"""


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_to_the_same_end(tmp_path, photograph_folder):
    (tmp_path / 'small.py').write_text(CONFIG.format(folder=str(photograph_folder)))
    environment = {
        **os.environ,
        'XLA_FLAGS': '',
        'PYTHONPATH': str(ROOT),
        'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'cache'),
        'JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }

    def start(name):
        command = [sys.executable, '-m', 'artifacts_jax.main', f'--config={tmp_path / "small.py"}']
        command.append(f'--workdir={tmp_path / name}')
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def finish(name):
        run = start(name)
        out, err = run.communicate(timeout=600)
        assert run.returncode == 0, err
        return out

    finish('warm')  # fills the cache, so that the next shows how long a run takes
    began = time.monotonic()
    finish('whole')
    length, moments = time.monotonic() - began, random.Random(0)
    for _ in range(KILLS):
        run = start('killed')
        time.sleep(moments.uniform(0.3, 1) * length)  # the first part is only Python's imports
        run.kill()
        run.communicate()
    finish('killed')
    assert 'all 20 steps are done' in finish('killed')

    config, _ = configuration.load(tmp_path / 'whole', default.get_config())
    devices = Devices('jit', jax.devices()[:1])
    for stage in (autoencoder, artifacts):
        whole, killed = (train.finished(stage, config, tmp_path / name, devices) for name in ('whole', 'killed'))
        jax.tree.map(np.testing.assert_array_equal, whole, killed)
        rows = {}
        for name in ('whole', 'killed'):
            kept = report.read(tmp_path / name / stage.NAME / 'metrics.jsonl')
            rows[name] = [{key: x for key, x in row.items() if key != 'train/images_per_second'} for row in kept]
        assert rows['whole'] == rows['killed']
        steps = [row['step'] for row in rows['killed'] if any(key.startswith('train/') for key in row)]
        assert steps == list(range(1, 21))
