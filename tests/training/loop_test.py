import os
import shutil
import signal

import jax
import numpy as np
import pytest

from artifacts_jax.config import ConfigError
from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import checkpoint, loop, replay, report
from tests import stopping

pytestmark = pytest.mark.usefixtures('undrawn')


@pytest.fixture(scope='module')
def devices():
    return Devices('jit', jax.devices()[:1])


@pytest.fixture
def datasets(config, photograph_folder):
    config.data.name = str(photograph_folder)
    return splits.Datasets(config)


def rows(workdir, stage):
    """Returns the logged metrics without those that depend on time."""
    logged = report.read_metrics(workdir / stage.NAME / 'metrics.jsonl')
    return [{name: x for name, x in row.items() if name != 'train/images_per_second'} for row in logged]


@pytest.mark.slow
@pytest.mark.parametrize('stage', [autoencoder, artifacts])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    config, datasets, devices, tmp_path, stage, stage_states, monkeypatch
):
    base = stage.BASE and stage_states[stage.BASE].variables

    def train(folder):
        return loop.run(stage, config, folder, devices, datasets, base)

    # Two steps after the checkpoint at 3.
    _, resumed = stopping.equals_when_resumed(monkeypatch, train, tmp_path / 'whole', tmp_path / 'parts', step=5)
    assert int(resumed.step) == 6
    assert rows(tmp_path / 'whole', stage) == rows(tmp_path / 'parts', stage)
    for a, b in zip(stopping.leaves(train(tmp_path / 'parts')), stopping.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


def test_signal_saves_the_state_and_exits_with_status_75(config, datasets, devices, tmp_path, monkeypatch):
    original = splits.InMemory.batch

    def batch(self, step, size):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, step, size)

    monkeypatch.setattr(splits.InMemory, 'batch', batch)
    with pytest.raises(loop.Preempted) as caught:
        loop.run(autoencoder, config, tmp_path, devices, datasets, None)
    assert caught.value.code == 75
    with checkpoint.Checkpoints(tmp_path / 'autoencoder' / 'checkpoints', config) as checkpoints:
        assert checkpoints.latest_step == 3  # the second step told all hosts, who saw it one step late


def test_unreadable_last_checkpoint_is_not_reported_as_complete(config, datasets, devices, tmp_path, monkeypatch):
    finish = checkpoint.Checkpoints.finish

    def damage(self):
        finish(self)
        shutil.rmtree(self.folder / '6' / 'variables')

    monkeypatch.setattr(checkpoint.Checkpoints, 'finish', damage)
    with pytest.raises(
        checkpoint.CheckpointError, match=r'step 6, was saved in .* but cannot be read back.*resumes from step 3'
    ):
        loop.run(autoencoder, config, tmp_path, devices, datasets, None)
    monkeypatch.undo()
    assert int(loop.run(autoencoder, config, tmp_path, devices, datasets, None).step) == 6


def test_fewer_steps_than_are_done_are_refused(config, datasets, devices, tmp_path):
    loop.run(autoencoder, config, tmp_path, devices, datasets, None)
    config.autoencoder.steps = 5
    with pytest.raises(
        checkpoint.CheckpointError, match=r'is at step 6 in .*, beyond the 5 steps of the configuration'
    ):
        loop.run(autoencoder, config, tmp_path, devices, datasets, None)


def test_a_signal_after_the_last_step_is_not_lost(config, datasets, devices, tmp_path, monkeypatch):
    monkeypatch.setattr(
        report.Report,
        'plot_curves',
        lambda self: os.kill(os.getpid(), signal.SIGTERM) if config.figure_every == 6 else None,
    )
    config.figure_every = 6
    with pytest.raises(loop.Preempted):
        loop.run(autoencoder, config, tmp_path, devices, datasets, None)
    config.figure_every = 100
    assert int(loop.run(autoencoder, config, tmp_path, devices, datasets, None).step) == 6


def test_signals_are_caught_until_the_last_save_is_on_disk(config, datasets, devices, tmp_path, monkeypatch):
    close, handlers = checkpoint.Checkpoints.__exit__, []
    before = signal.getsignal(signal.SIGTERM)

    def closing(self, *exception):
        close(self, *exception)
        handlers.append(signal.getsignal(signal.SIGTERM))

    monkeypatch.setattr(checkpoint.Checkpoints, '__exit__', closing)
    loop.run(autoencoder, config, tmp_path, devices, datasets, None)
    assert handlers != [before]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_step_to_replay_is_never_unpickled(config, datasets, devices, tmp_path):
    path = tmp_path / 'autoencoder' / loop.NONFINITE_FOLDER / '5.npz'
    path.parent.mkdir(parents=True)
    np.savez(path, key=np.array([print], dtype=object))
    with pytest.raises(ConfigError, match=r'5\.npz cannot be read: Object arrays cannot be loaded'):
        replay.run(path, autoencoder, config, tmp_path, devices, datasets, None)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ConfigError, match=r'5\.npz cannot be read'):
        replay.run(path, autoencoder, config, tmp_path, devices, datasets, None)


def test_non_finite_loss_names_step_loss_and_checkpoint_and_is_replayed(
    config, datasets, devices, tmp_path, monkeypatch, capsys
):
    original = autoencoder.train_step

    def broken(state, batch, key, *, config, axis_name=None):
        state, values = original(state, batch, key, config=config, axis_name=axis_name)
        state.params['decoder']['layer3']['bias'] /= state.step != 5
        return state, {**values, 'loss/pixel': values['loss/pixel'] / (state.step != 5)}

    monkeypatch.setattr(autoencoder, 'train_step', broken)
    with pytest.raises(loop.NonFiniteError, match=r'loss/pixel is inf at step 5 of autoencoder.*checkpoints/3'):
        loop.run(autoencoder, config, tmp_path, devices, datasets, None)
    with checkpoint.Checkpoints(tmp_path / 'autoencoder' / 'checkpoints', config) as checkpoints:
        assert checkpoints.latest_step == 3
    (path,) = replay.list_files(autoencoder, tmp_path)
    replayed = replay.run(path, autoencoder, config, tmp_path, devices, datasets, None)
    assert replayed['step'] == 5
    assert [name for name, value in replayed['values'].items() if not np.isfinite(value)] == ['loss/pixel']
    assert replayed['arrays'] == ['params/decoder/layer3/bias']
    output = capsys.readouterr().out
    assert 'autoencoder: replays step 5 from the checkpoint at step 3' in output
    assert 'batch image: [8, 16, 16, 3] uint8' in output


def test_incomplete_stage_is_an_error_with_its_step(config, devices, tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match='autoencoder is at step 0 of 6'):
        loop.load_final_state(autoencoder, config, tmp_path, devices)


def test_newest_state_is_that_of_the_last_checkpoint_and_has_the_average_with_use_ema(
    config, devices, tmp_path, stage_states
):
    state = stage_states[autoencoder]
    state = state.replace(ema=jax.tree.map(lambda x: x + 1, state.params))
    config.optim.ema_decay = 0.9
    with pytest.raises(checkpoint.CheckpointError, match='no checkpoint of the stage autoencoder in'):
        loop.load_newest_state(autoencoder, config, tmp_path, devices)
    assert not list(tmp_path.iterdir())
    with checkpoint.Checkpoints(tmp_path / 'autoencoder' / 'checkpoints', config, devices.replicated) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, state.replace(step=np.int32(step)))
    for averaged, params in ((False, state.params), (True, state.ema)):
        config.optim.use_ema = averaged
        newest = loop.load_newest_state(autoencoder, config, tmp_path, devices)
        assert newest.step == 4
        jax.tree.map(np.testing.assert_array_equal, newest.params, params)
        jax.tree.map(np.testing.assert_array_equal, newest.batch_stats, state.batch_stats)
