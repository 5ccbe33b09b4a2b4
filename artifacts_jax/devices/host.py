"""The host machine: compilation cache, paths, locks, memory and CPUs."""

import contextlib
import errno
import logging
import os
import re
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from artifacts_jax.config import ConfigError

TENSORFLOW = "pip install 'artifacts_jax[tensorflow]'"  # installs TensorFlow, which is an extra
LEASE_S = 120  # seconds that a network file system may keep the lock of a host that has died


def set_up_jax() -> None:
    """Configures JAX for a command; call it before anything uses a device.

    The compilation cache is JAX_COMPILATION_CACHE_DIR, or ~/.cache/artifacts_jax, where small programs are cached, too.
    On CPU, dispatch is synchronous, so that computations run in the main thread: only its heap in glibc takes blocks
    of any size, those of other threads end at 64 MB.
    """
    import jax

    jax.config.update('jax_cpu_enable_async_dispatch', False)
    if folder := jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        usable = '://' in folder or _create_cache(folder, 'JAX_COMPILATION_CACHE_DIR')  # JAX also writes to buckets
        jax.config.update('jax_enable_compilation_cache', bool(usable))
        return
    if cache := _create_cache(f'{os.environ.get("XDG_CACHE_HOME") or "~/.cache"}/artifacts_jax', 'XDG_CACHE_HOME'):
        jax.config.update('jax_compilation_cache_dir', str(cache))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def _create_cache(folder, variable):
    """Creates the folder of the compilation cache and returns it; None if it is not writable, as in some containers."""
    try:
        cache = Path(folder).expanduser()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return cache
    except (OSError, RuntimeError) as error:  # RuntimeError: the home directory is unknown
        reason = getattr(error, 'strerror', None) or error
        print(
            f'warning: compiled programs are not cached, because {folder} is not writable ({reason}); set {variable} to'
            f' a writable folder',
            file=sys.stderr,
        )
        with contextlib.suppress(OSError):  # else Matplotlib warns, and Keras creates a folder named '~'
            for name in ('MPLCONFIGDIR', 'KERAS_HOME'):
                os.environ.setdefault(name, tempfile.mkdtemp())
        return None


def folder(path: str | Path, name: str) -> Path:
    """Returns a path from the command line, with ~ expanded.

    Args:
      path: a folder or file.
      name: the flag or key that it is the value of, for messages.

    Raises:
      ConfigError: the path is empty, in a bucket, or has characters that storage libraries read as wildcards.
    """
    path = str(path)
    if not path.strip():
        raise ConfigError(f'--{name} is empty; expected a folder')
    if bucket := re.match(r'([\w.+-]+):/', path):
        raise ConfigError(
            f'--{name}={path}: expected a local folder, not a {bucket[1]}: address; mount the bucket, or use a local'
            f' folder and copy it, as launch/tpu_vm.sh --bucket= does'
        )
    try:
        expanded = Path(path).expanduser()
        absolute = str(expanded.absolute())
        absolute.encode()
    except (RuntimeError, UnicodeError) as error:  # an unknown user's home, a name in another encoding
        raise ConfigError(f'--{name}={path!r}: {error}') from error
    if wildcards := [character for character in '*?[\\\0' if character in absolute]:
        raise ConfigError(
            f'--{name}={path}: {absolute} contains {" and ".join(map(repr, wildcards))}, and checkpoints in such a'
            f' folder cannot be read; use another folder'
        )
    return expanded


@contextlib.contextmanager
def exclusive_lock(folder: Path, *, should_wait: bool = False) -> Iterator[None]:
    """Locks a folder against other runs while the context lasts; the operating system releases it with the process.

    If another host holds the lock, waits up to LEASE_S seconds, because that host may have been preempted.

    Args:
      folder: a work directory, or another folder; created if necessary.
      should_wait: wait until the other run ends, instead of raising an error.

    Raises:
      ConfigError: another run holds the lock (the message names it), or the file system has no locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise ConfigError(
            'this system has no fcntl, which locks the work directory; use Linux, macOS or WSL'
        ) from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    # The package filelock does not know the holder, and where flock is missing it takes the file's existence as a lock.
    with (Path(folder) / 'lock').open('a+') as file:
        end = time.monotonic() + LEASE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if should_wait else fcntl.LOCK_NB))
                break
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read() or 'another run'
                if holder.endswith(f' on {socket.gethostname()}') or time.monotonic() > end:
                    raise ConfigError(
                        f'{folder} is in use by {holder}; wait until that run ends, or use another --workdir'
                    ) from error
                time.sleep(0.5)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
                raise ConfigError(
                    f'{folder}: its file system does not support locks ({error.strerror}); mount it with locks (Lustre:'
                    f' -o flock), or use another --workdir'
                ) from error
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        os.fsync(file.fileno())  # so that other hosts can read it
        yield


def peak_memory() -> int:
    """Returns the peak resident memory of this process in bytes, 0 if the system does not report it."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def hide_accelerators() -> None:
    """Hides GPUs and TPUs from TensorFlow, which would allocate their memory; call it before any TensorFlow operation.

    Also silences TensorFlow's start-up messages, such as those about oneDNN.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
    import tensorflow as tf

    for kind in ('GPU', 'TPU'):
        tf.config.set_visible_devices([], kind)


def cpus() -> int:
    """Returns the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
