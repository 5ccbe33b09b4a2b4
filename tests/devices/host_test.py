import errno
import fcntl
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from artifacts_jax.config import ConfigError
from artifacts_jax.devices import host


def test_peak_memory_is_in_bytes():
    held = np.ones(300_000_000, np.uint8)
    assert len(held) < host.peak_memory() < 1e11


LOCK = """
import sys, time
from artifacts_jax.devices import host
with host.exclusive_lock(sys.argv[1]):
    print('locked', flush=True)
    time.sleep(60)
"""


def test_a_work_directory_is_one_runs_alone_until_it_ends_or_dies(tmp_path):
    with subprocess.Popen([sys.executable, '-c', LOCK, tmp_path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == 'locked\n'
        named = f'is in use by process {other.pid} on .*; wait until that run ends'
        with pytest.raises(ConfigError, match=named), host.exclusive_lock(tmp_path):
            pass
        other.kill()
    with host.exclusive_lock(tmp_path):
        assert (tmp_path / 'lock').read_text().startswith(f'process {os.getpid()} on')


def test_the_lock_of_a_host_that_is_gone_is_waited_for(tmp_path, monkeypatch):
    with (tmp_path / 'lock').open('w') as held:
        held.write('process 7 on another')
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(host, 'LEASE_S', 0.1)
        with pytest.raises(ConfigError, match='in use by process 7 on another'), host.exclusive_lock(tmp_path):
            pass
        monkeypatch.setattr(host, 'LEASE_S', 60)
        lapse = threading.Timer(0.7, fcntl.flock, (held, fcntl.LOCK_UN))
        lapse.start()
        with host.exclusive_lock(tmp_path):
            assert (tmp_path / 'lock').read_text().startswith(f'process {os.getpid()} on')
        lapse.join()


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, 'flock', flock)
    with pytest.raises(ConfigError, match=r'does not support locks.*Lustre: -o flock'), host.exclusive_lock(tmp_path):
        pass


def test_a_system_without_locks_or_usage_is_said_in_a_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'fcntl', None)
    monkeypatch.setitem(sys.modules, 'resource', None)
    with pytest.raises(ConfigError, match='this system has no fcntl'), host.exclusive_lock(tmp_path):
        pass
    assert host.peak_memory() == 0


def test_where_nothing_can_be_written_there_is_no_cache_and_it_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / 'file').touch()
    for name in ('MPLCONFIGDIR', 'KERAS_HOME'):
        monkeypatch.setenv(name, 'kept')
    assert host._create_cache(tmp_path / 'file' / 'cache', 'XDG_CACHE_HOME') is None
    assert 'compiled programs are not cached' in capsys.readouterr().err
    monkeypatch.setenv('HOME', str(tmp_path))
    assert host._create_cache('~/cache', 'XDG_CACHE_HOME') == tmp_path / 'cache'


def test_a_home_is_found_and_everything_else_is_left_as_it_is(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    assert host.folder('~/runs/x', 'workdir') == tmp_path / 'runs' / 'x'
    for name in ('runs/x', '/runs', 'a b', 'ä', 'a:b', "it's", '-x'):
        assert str(host.folder(name, 'workdir')) == name
