"""Whole runs on other numbers of devices than one, and runs that change it on the way."""

import shutil
import signal

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(('mapping', 'count'), [('jit', 8), ('pmap', 2), ('pmap', 8)])
def test_a_run_learns_the_same_on_any_number_of_devices(runs, mapping, count):
    name = f'{mapping}_{count}'
    runs.finish(name, f'--config.parallel={mapping}', devices=count)
    runs.check_close(name, 'whole')


@pytest.mark.slow
@pytest.mark.parametrize(('before', 'after'), [(4, (1, 2, 8)), (1, (4,))])
def test_a_run_goes_on_with_another_number_of_devices(runs, before, after):
    stopped = f'stopped_on_{before}'
    run = runs.start(stopped, devices=before)
    runs.wait_for_step(stopped, 5)
    run[0].send_signal(signal.SIGINT)
    assert [status for status, _, _ in runs.end(run)] == [75]
    for count in after:
        name = f'from_{before}_to_{count}'
        shutil.copytree(runs.folder / stopped, runs.folder / name)
        runs.finish(name, devices=count)
        runs.check_close(name, 'whole')
