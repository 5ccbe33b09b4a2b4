"""A run that is killed again and again ends as one that was left alone. KILLS=30 makes it long."""

import os
import random
import time

import jax
import numpy as np
import pytest

from artifacts_jax import artifacts, autoencoder

KILLS = int(os.environ.get('KILLS', '4'))


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_to_the_same_end(runs):
    began = time.monotonic()
    runs.finish('again')  # everything is compiled, so that this shows how long a run takes
    length, moments = time.monotonic() - began, random.Random(0)
    for _ in range(KILLS):
        (process,) = run = runs.start('killed')
        time.sleep(moments.uniform(0.3, 1) * length)  # the first part is only Python's imports
        process.kill()
        runs.end(run)
    runs.finish('killed')
    assert 'all 20 steps are done' in runs.finish('killed')
    for stage in (autoencoder, artifacts):
        jax.tree.map(np.testing.assert_array_equal, runs.state('whole', stage), runs.state('killed', stage))
        rows = runs.rows('killed', stage)
        assert rows == runs.rows('whole', stage)
        assert [row['step'] for row in rows if any(name.startswith('train/') for name in row)] == list(range(1, 21))
