import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from artifacts_jax.config import ConfigError
from artifacts_jax.devices import processes
from artifacts_jax.pretraining import artifacts, autoencoder


def test_one_process_is_the_first_and_agrees_with_itself(tmp_path):
    assert processes.is_first()
    assert processes.broadcast(True)
    assert not processes.broadcast(False)
    assert processes.round_up(7) == 7
    tree = {'x': np.arange(6).reshape(3, 2)}
    np.testing.assert_array_equal(processes.gather(processes.local_shard(tree))['x'], tree['x'])
    with pytest.raises(ZeroDivisionError), processes.end_together():
        processes.run_on_first_process(lambda: 1 / 0, 'divide')


@pytest.mark.parametrize('given', [('a:1', 2, None), ('a:1', None, 0), ('', 2, 0), ('a:1', 2, 2)])
def test_half_of_what_joining_takes_is_refused(given):
    with pytest.raises(ConfigError, match='give all three'):
        processes.join(*given)


SLURM = {'SLURM_STEP_NUM_TASKS': '2', 'SLURM_GPUS_ON_NODE': '4'}


@pytest.mark.parametrize(
    ('environment', 'expected'),
    [
        ({}, None),
        ({'SLURM_STEP_NUM_TASKS': '1'}, None),
        ({'SLURM_STEP_NUM_TASKS': '2'}, {'local_device_ids': None}),
        ({**SLURM, 'SLURM_STEP_NUM_NODES': '2'}, {'local_device_ids': [0, 1, 2, 3]}),
        ({**SLURM, 'SLURM_STEP_NUM_NODES': '1'}, {'local_device_ids': None}),  # JAX picks one for each task
        ({'TPU_ML_PLATFORM': 'JAX'}, {'local_device_ids': None}),
    ],
)
def test_the_platform_says_whether_there_are_others(environment, expected, monkeypatch):
    for name in (*SLURM, 'TPU_ML_PLATFORM'):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    calls = []
    monkeypatch.setattr(processes.jax.distributed, 'initialize', lambda **options: calls.append(options))
    monkeypatch.setattr(processes.faulthandler, 'disable', lambda: None)
    processes.join()
    asked = [{name: x for name, x in call.items() if not name.endswith(('timeout', 'seconds'))} for call in calls]
    assert asked == ([] if expected is None else [expected])


MEET_AND_STOP = """
import os, signal, time, jax
from artifacts_jax.devices import processes
processes.join()
assert jax.process_count() == 2
assert processes.any_process(jax.process_index() == 1) and not processes.any_process(False)
os.kill(os.getpid(), signal.SIGTERM)  # outside of training it is the system's
time.sleep(60)
"""


@pytest.mark.slow
def test_two_tasks_of_a_slurm_step_meet():
    step = {'STEP_NODELIST': 'localhost', 'NTASKS': '2', 'STEP_NUM_TASKS': '2', 'LOCALID': '0'}
    step['JOB_ID'] = str(os.getpid())  # by which JAX chooses the port
    slurm = {f'SLURM_{name}': value for name, value in step.items()}
    tasks = [
        subprocess.Popen([sys.executable, '-c', MEET_AND_STOP], env={**os.environ, **slurm, 'SLURM_PROCID': str(n)})
        for n in (0, 1)
    ]
    assert -signal.SIGTERM in [task.wait(timeout=90) for task in tasks]  # the other may find it gone


JOIN = "from artifacts_jax.devices import processes; processes.join('127.0.0.1:{port}', 2, {index}, timeout=4)"


@pytest.mark.slow
@pytest.mark.parametrize('index', [0, 1])
def test_a_process_that_the_others_miss_is_told_by_each(index, free_port):
    command = [sys.executable, '-c', JOIN.format(index=index, port=free_port)]
    alone = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert alone.returncode == 1
    assert alone.stderr.count('error: the other processes did not connect within 4 seconds') == 1


@pytest.mark.slow
def test_two_processes_stop_together_and_resume_to_what_one_learns_and_finds(runs):
    stages = '--config.stages=("autoencoder", "artifacts", "probe")'
    run = runs.start('on_2', stages, processes=2)
    runs.wait_for_step('on_2', 4)
    run[1].send_signal(signal.SIGTERM)  # one of them: the other hears of it
    ended = runs.end(run)
    assert [status for status, _, _ in ended] == [75, 75]
    assert 'state saved; run the same command to resume' in ended[0][1]
    assert [line for line in ended[1][1].splitlines() if not line.startswith('[Gloo]')] == []  # the first alone prints
    assert 'conv5' in runs.finish('on_2', stages, processes=2)
    runs.check_close('on_2', 'whole')
    for stage in (autoencoder, artifacts):
        found, expected = (
            [row for row in runs.rows(name, stage) if 'test/psnr' in row or 'test/mask_auc' in row]
            for name in ('on_2', 'whole')
        )
        for row, other in zip(found, expected, strict=True):  # of every example of every process
            assert row == pytest.approx(other, rel=0.02, abs=0.02)


@pytest.mark.slow
def test_when_one_process_dies_the_other_ends(runs):
    run = runs.start('died', processes=2)
    runs.wait_for_step('died', 6)
    check_ends(runs, run, 0)


def check_ends(runs, run, victim):
    """Kills one of two processes; asserts that the other ends soon and says why."""
    run[victim].kill()
    died = time.monotonic()
    status, _, said = runs.end(run)[1 - victim]
    assert time.monotonic() - died < 60
    assert status not in (0, 75)
    told = (
        'start all processes again: the run resumes from its newest checkpoint',
        'likely indicates that another task died',  # JAX's words, if it was the first to know
        'polled an error from coordination service',  # or those if the first process died
    )
    assert any(text in said for text in told), said


@pytest.mark.nightly
def test_four_processes_go_on_where_two_stopped(runs):
    run = runs.start('stopped', processes=2)
    runs.wait_for_step('stopped', 4)
    run[0].send_signal(signal.SIGTERM)
    assert [status for status, _, _ in runs.end(run)] == [75, 75]
    runs.finish('stopped', processes=4)
    runs.check_close('stopped', 'whole')


@pytest.mark.nightly
def test_two_processes_stop_on_ctrl_c_and_go_back_together_from_a_damaged_checkpoint(runs):
    run = runs.start('damaged_on_2', processes=2)
    runs.wait_for_step('damaged_on_2', 6)
    for process in run:
        process.send_signal(signal.SIGINT)
    assert [status for status, _, _ in runs.end(run)] == [75, 75]
    folder = runs.folder / 'damaged_on_2' / autoencoder.NAME / 'checkpoints'
    newest = folder / str(max(int(path.name) for path in folder.iterdir()))
    parts = [path for path in newest.rglob('*') if path.is_file() and path.parent.parent.name.startswith('ocdbt')]
    assert {path.parent.parent.name for path in parts} == {'ocdbt.process_0', 'ocdbt.process_1'}  # written by both
    for path in parts:
        path.write_bytes(b'')
    ended = runs.end(runs.start('damaged_on_2', processes=2))
    assert [status for status, _, _ in ended] == [0, 0]
    assert f'{newest} cannot be restored' in ended[0][2]
    runs.check_close('damaged_on_2', 'whole')


@pytest.mark.nightly
def test_two_processes_end_on_a_loss_that_is_not_finite_with_the_batch_of_both(runs):
    command = ('nonfinite_on_2', '--config.autoencoder.learning_rate=1e30')
    ended = runs.end(runs.start(*command, processes=2))
    assert [status for status, _, _ in ended] == [1, 1]
    (path,) = (runs.folder / 'nonfinite_on_2' / autoencoder.NAME / 'nonfinite').glob('*.npz')
    with np.load(path) as saved:
        assert saved['batch_image'].shape == (8, 16, 16, 3)
    assert f'at step {path.stem} of autoencoder' in ended[0][2]
    assert f'replays step {path.stem} from the checkpoint' in runs.finish(*command, '--replay')


@pytest.mark.nightly
@pytest.mark.parametrize(('mapping', 'victim'), [('pmap', 1), ('jit', 0)])
def test_when_one_process_dies_the_others_end_and_one_goes_on(runs, mapping, victim):
    name, mapping = f'{mapping}_{victim}_died', f'--config.parallel={mapping}'
    run = runs.start(name, mapping, processes=2, devices=2)
    runs.wait_for_step(name, 6)
    check_ends(runs, run, victim)
    runs.finish(name, mapping)
    runs.check_close(name, 'whole')


@pytest.mark.nightly
def test_two_processes_read_a_stream_as_one_does(runs):
    runs.finish('stream', '--config.data.loading=stream')
    runs.finish('stream_on_2', '--config.data.loading=stream', processes=2)
    runs.check_close('stream_on_2', 'stream')


@pytest.mark.slow
def test_an_error_that_one_process_meets_ends_all(runs, tmp_path):
    run = runs.start('blind', f'--config.data.name={tmp_path}', processes=2)
    ended = runs.end(run)
    assert [status for status, _, _ in ended] == [1, 1]
    assert all('has no images' in said for _, _, said in ended)
