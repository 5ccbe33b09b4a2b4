"""A run that is killed repeatedly reaches the same state as an uninterrupted run; KILLS sets the number of kills."""

import os
import random
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from artifacts_jax.pretraining import artifacts, autoencoder

KILLS = int(os.environ.get('KILLS', '8'))
OFTEN = '--config.checkpoint_every=4'


@pytest.mark.parametrize(
    'kills', [pytest.param(2, marks=pytest.mark.slow), pytest.param(KILLS, marks=pytest.mark.nightly)]
)
def test_run_killed_at_any_moment_resumes_to_the_same_state(kills, runs):
    began = time.monotonic()
    runs.finish(f'again_{kills}', OFTEN)  # measures the duration of a run; everything is compiled before
    length, moments = time.monotonic() - began, random.Random(0)
    names, killed, saving = [f'killed_{kills}_0'], 0, 0
    while killed < kills:
        (process,) = run = runs.start(names[-1], OFTEN)
        moment = time.monotonic() + moments.uniform(0.1, 1) * length
        in_save = killed % 2 == 1
        while process.poll() is None and (in_save or time.monotonic() < moment):
            if in_save and unfinished(runs.folder / names[-1]):
                break
            time.sleep(0.001)
        process.kill()
        if runs.end(run)[0][0] == -signal.SIGKILL:
            killed += 1
            saving += bool(unfinished(runs.folder / names[-1]))
        else:  # the run ended before the kill: continue with a new run
            names.append(f'killed_{kills}_{len(names)}')
    assert saving >= max(1, kills // 4)
    for name in names:
        assert 'all 20 steps are done' in runs.finish(name, OFTEN)
        for stage in (autoencoder, artifacts):
            jax.tree.map(np.testing.assert_array_equal, runs.state('whole', stage), runs.state(name, stage))
            rows = runs.rows(name, stage)
            assert rows == runs.rows('whole', stage)
            trained = [row['step'] for row in rows if any(key.startswith('train/') for key in row)]
            assert trained == list(range(1, 21))


@pytest.mark.nightly
@pytest.mark.skipif(os.geteuid() != 0, reason='only root can mount a small disk')
def test_run_resumes_after_a_full_disk(runs):
    disk = runs.folder / 'small_disk'
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1500k', 'tmpfs', disk], check=False)
    if mounted.returncode:
        pytest.skip('mounting a small disk is not allowed here')
    try:
        ((status, _, output),) = runs.end(runs.start('small_disk', OFTEN))
        assert status == 1
        assert 'error: no room' in output
        assert 'Traceback' not in output
        subprocess.run(['mount', '-o', 'remount,size=100m', disk], check=True)
        runs.finish('small_disk', OFTEN)
        for stage in (autoencoder, artifacts):
            jax.tree.map(np.testing.assert_array_equal, runs.state('whole', stage), runs.state('small_disk', stage))
    finally:
        subprocess.run(['umount', disk], check=True)


def unfinished(workdir):
    """Returns the temporary folders of unfinished saves."""
    return list(workdir.glob('*/checkpoints/*.orbax-checkpoint-tmp*'))
