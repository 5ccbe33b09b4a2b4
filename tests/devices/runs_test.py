"""Whole runs on other numbers of devices than one, and runs that change it on the way."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.nightly
@pytest.mark.parametrize(('mapping', 'count'), [('jit', 2), ('pmap', 4)])
def test_a_run_learns_the_same_on_any_number_of_devices(runs, mapping, count):
    name = f'{mapping}_{count}'
    runs.finish(name, f'--config.parallel={mapping}', devices=count)
    runs.check_close(name, 'whole')


@pytest.mark.nightly
@pytest.mark.parametrize(('before', 'after'), [(4, (1, 8)), (1, (4,))])
def test_a_run_goes_on_with_another_number_of_devices(runs, before, after):
    stopped = f'stopped_on_{before}'
    run = runs.start(stopped, devices=before)
    runs.wait_for_step(stopped, 5)
    run[0].send_signal(signal.SIGINT)
    told = time.monotonic()
    assert [status for status, _, _ in runs.end(run)] == [75]
    assert time.monotonic() - told < 20
    for count in after:
        name = f'from_{before}_to_{count}'
        shutil.copytree(runs.folder / stopped, runs.folder / name)
        runs.finish(name, devices=count)
        runs.check_close(name, 'whole')


@pytest.mark.nightly
def test_eight_devices_draw_what_one_does():
    command = [sys.executable, '-m', 'pytest', '-q', 'tests/devices/parallel_test.py', '-k', 'bit_for_bit']
    drawn = subprocess.run(command, env={**os.environ, 'XLA_FLAGS': '', 'DEVICES': '8'}, capture_output=True, text=True)
    assert drawn.returncode == 0, drawn.stdout
