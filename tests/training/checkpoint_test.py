import errno
import os
import shutil
import subprocess
import types

import jax
import numpy as np
import pytest

from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import autoencoder
from artifacts_jax.training import loop
from artifacts_jax.training.checkpoint import CheckpointError, Checkpoints
from tests.conftest import tiny


@pytest.fixture(scope='module')
def devices():
    return Devices('jit', jax.devices()[:1])


@pytest.fixture(scope='module')
def original(devices, stage_states, tmp_path_factory):
    """A folder with checkpoints of steps 2 and 4, whose states differ."""
    folder = tmp_path_factory.mktemp('original') / 'checkpoints'
    state = jax.device_put(stage_states[autoencoder], devices.replicated)
    with Checkpoints(folder, tiny(), devices.replicated) as checkpoints:
        for step in (2, 4):
            checkpoints.save(step, at(state, step))
    return folder


@pytest.fixture
def saved(original, tmp_path):
    """A copy of `original`."""
    return shutil.copytree(original, tmp_path / 'checkpoints')


def at(state, step):
    return state.replace(step=np.int32(step), params=jax.tree.map(lambda x: x + step, state.params))


def restore(config, devices, folder, **options):
    with Checkpoints(folder, config, devices.replicated) as checkpoints:
        return checkpoints.restore(loop.compute_state_shapes(autoencoder, config), **options)


def files(folder):
    return sorted(path for path in folder.rglob('*') if path.is_file())


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(at * len(content))] ^= 0x10
    path.write_bytes(bytes(content))


def largest(folder):
    return max(files(folder), key=lambda path: path.stat().st_size)


def rename(metadata):
    metadata.write_text(metadata.read_text().replace('layer3', 'layer9'))


DAMAGES = {
    'truncated': lambda folder: truncate(largest(folder)),
    'all truncated': lambda folder: [truncate(path) for path in files(folder)],
    'emptied file': lambda folder: largest(folder).write_bytes(b''),
    'emptied folder': lambda folder: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in folder.iterdir()],
    'a file missing': lambda folder: largest(folder).unlink(),
    'an item missing': lambda folder: shutil.rmtree(folder / 'variables'),
    'a byte flipped': lambda folder: flip(largest(folder)),
    'a name changed': lambda folder: rename(folder / 'variables' / '_METADATA'),
    'no checksums': lambda folder: shutil.rmtree(folder / 'checksums'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_damaged_checkpoint_is_moved_and_the_previous_one_restored(
    config, devices, saved, stage_states, capsys, damage
):
    DAMAGES[damage](saved / '4')
    restored = restore(config, devices, saved)
    jax.tree.map(np.testing.assert_array_equal, restored, at(stage_states[autoencoder], 2))
    warning = capsys.readouterr().err
    assert f'{saved / "4"}' in warning
    assert f'using {saved / "2"}' in warning
    assert [path.name for path in (saved.parent / 'damaged').iterdir()] == ['4.1']
    with Checkpoints(saved, config, devices.replicated) as checkpoints:
        assert checkpoints.latest_step == 2
        checkpoints.save(4, at(stage_states[autoencoder], 4))
    jax.tree.map(np.testing.assert_array_equal, restore(config, devices, saved), at(stage_states[autoencoder], 4))


@pytest.mark.nightly
def test_checksums_detect_every_flipped_byte(config, devices, saved, stage_states, tmp_path):
    expected = {step: at(stage_states[autoencoder], step) for step in (2, 4)}
    for number, path in enumerate(files(saved / '4')):
        for position in (0.1, 0.5, 0.9):
            copy = tmp_path / f'{number}-{position}' / 'checkpoints'
            shutil.copytree(saved, copy)
            flip(copy / path.relative_to(saved), position)
            restored = restore(config, devices, copy)
            jax.tree.map(np.testing.assert_array_equal, restored, expected[int(restored.step)])


def test_restoring_without_training_moves_no_checkpoint(config, devices, saved):
    flip(largest(saved / '4'))
    assert int(restore(config, devices, saved, training=False).step) == 2
    assert sorted(path.name for path in saved.iterdir() if path.is_dir()) == ['2', '4']


def test_only_damaged_checkpoints_are_an_error_not_a_restart(config, devices, saved):
    for step in ('2', '4'):
        flip(largest(saved / step))
    with pytest.raises(CheckpointError, match='has no other checkpoint'):
        restore(config, devices, saved)
    assert sorted(path.name for path in saved.iterdir()) == ['2', '4']


def test_checkpoint_of_another_architecture_is_refused(config, devices, saved):
    config.model.encoder_widths = (4, 8, 12)
    difference = r'params/encoder/layer3/conv/kernel: \(2, 2, 8, 8\) saved, \(2, 2, 8, 12\) expected'
    with pytest.raises(CheckpointError, match=difference):
        restore(config, devices, saved)


def test_a_moving_average_that_was_not_kept_is_a_difference_not_damage(config, devices, saved):
    config.optim.ema_decay = 0.9
    with pytest.raises(CheckpointError, match=r'another architecture:\n  ema/decoder/.*: nothing saved'):
        restore(config, devices, saved)


def test_full_disk_is_one_error_and_damages_no_checkpoint(config, devices, saved, stage_states, monkeypatch):
    state, expected = at(stage_states[autoencoder], 6), restore(config, devices, saved)
    needed = r'no room for a checkpoint in .*: it needs 0\.\d MB, and 0\.0 MB are free; .* resumes from step 4'
    with Checkpoints(saved, config, devices.replicated) as checkpoints, monkeypatch.context() as patch:
        patch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=1000))
        with pytest.raises(CheckpointError, match=needed):
            checkpoints.save(6, state)
    jax.tree.map(np.testing.assert_array_equal, restore(config, devices, saved), expected)
    with Checkpoints(saved, config, devices.replicated) as checkpoints:
        checkpoints.save(6, state)
    jax.tree.map(np.testing.assert_array_equal, restore(config, devices, saved), state)


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize('wrapped', [False, True])
def test_exceeded_quota_is_reported_like_a_full_disk(config, devices, saved, number, wrapped):
    error = OSError(number, os.strerror(number))
    with Checkpoints(saved, config, devices.replicated) as checkpoints:
        full = pytest.raises(CheckpointError, match=r'no room for a checkpoint in .* resumes from step 4')
        with full, checkpoints._convert_disk_errors(100):
            raise ValueError(f'{error} while writing') if wrapped else error  # as TensorStore has it
        denied = pytest.raises(CheckpointError, match=r'cannot be written in .*: Read-only file system; .* from step 4')
        with denied, checkpoints._convert_disk_errors(100):
            raise ValueError(f'{os.strerror(errno.EROFS)}, says the storage')
        with pytest.raises(ValueError, match='something else'), checkpoints._convert_disk_errors(100):
            raise ValueError('something else')


@pytest.mark.skipif(os.geteuid() != 0, reason='only root can mount a small disk')
# Orbax's threads end each with an error of its own.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
@pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')
def test_disk_that_fills_while_saving_damages_no_checkpoint(config, devices, stage_states, tmp_path, monkeypatch):
    disk, state = tmp_path / 'disk', stage_states[autoencoder]
    disk.mkdir()
    mounted = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip('mounting a small disk is not allowed here')
    try:
        with Checkpoints(disk / 'checkpoints', config, devices.replicated) as checkpoints:
            checkpoints.save(2, at(state, 2))
        (disk / 'ballast').write_bytes(bytes(shutil.disk_usage(disk).free - 20_000))
        monkeypatch.setattr(shutil, 'disk_usage', lambda path: types.SimpleNamespace(free=1e9))  # it fills afterwards
        with (
            pytest.raises(CheckpointError, match=r'no room for .*: it needs 0\.\d MB, .* resumes from step 2'),
            Checkpoints(disk / 'checkpoints', config, devices.replicated) as checkpoints,
        ):
            checkpoints.save(4, at(state, 4))
        (disk / 'ballast').unlink()
        restored = restore(config, devices, disk / 'checkpoints')
        jax.tree.map(np.testing.assert_array_equal, restored, at(state, 2))
    finally:
        subprocess.run(['umount', disk], check=True)
