"""What the process asks of the machine that it runs on, apart from JAX's devices."""

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
LEASE_S = 120  # for so long a network's file system may hold the lock of a host that is gone


def set_up_jax() -> None:
    """Sets JAX up for a program; call it before anything asks for devices.

    Compiled programs are kept between runs, in JAX_COMPILATION_CACHE_DIR or ~/.cache/artifacts_jax, there the many
    small ones too. On CPU, what one asks for runs in one's own thread: glibc has a heap for blocks of any size for the
    main thread only, others' end at 64 MB.
    """
    import jax

    jax.config.update('jax_cpu_enable_async_dispatch', False)
    if given := jax.config.jax_compilation_cache_dir:
        kept = '://' in given or _writable(given, 'JAX_COMPILATION_CACHE_DIR')  # JAX writes to buckets, too
        jax.config.update('jax_enable_compilation_cache', bool(kept))
        return
    if cache := _writable(f'{os.environ.get("XDG_CACHE_HOME") or "~/.cache"}/artifacts_jax', 'XDG_CACHE_HOME'):
        jax.config.update('jax_compilation_cache_dir', str(cache))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def _writable(place, variable):
    """Returns the folder for compiled programs, made; None where it cannot be written, as in some containers."""
    try:
        cache = Path(place).expanduser()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return cache
    except (OSError, RuntimeError) as error:  # the latter of a home that is not known
        reason = getattr(error, 'strerror', None) or error
        print(
            f'compiled programs are not kept: {place} cannot be written ({reason}); set {variable} to where one can',
            file=sys.stderr,
        )
        with contextlib.suppress(OSError):  # Matplotlib would say the same of its own, Keras make a folder '~'
            for name in ('MPLCONFIGDIR', 'KERAS_HOME'):
                os.environ.setdefault(name, tempfile.mkdtemp())
        return None


def folder(path: str | Path, name: str) -> Path:
    """Returns the path of a folder or file that a person gave, ~ being their home.

    Args:
      path: as it was given.
      name: of the flag or key that gave it, for messages.

    Raises:
      ConfigError: it is empty, in a bucket, or has characters by which storage libraries look for several files.
    """
    path = str(path)
    if not path.strip():
        raise ConfigError(f'--{name} is empty: name a folder')
    if bucket := re.match(r'([\w.+-]+):/', path):
        raise ConfigError(
            f'--{name}={path}: {bucket[1]}: is no folder of this machine, and the program writes to folders alone;'
            f' use one and copy it, as launch/tpu_vm.sh --bucket= does while a run trains, or mount the bucket'
        )
    try:
        found = Path(path).expanduser()
        whole = str(found.absolute())
        whole.encode()
    except (RuntimeError, UnicodeError) as error:  # the home of nobody, a name in another encoding
        raise ConfigError(f'--{name}={path!r}: {error}') from error
    if odd := [character for character in '*?[\\\0' if character in whole]:
        raise ConfigError(
            f'--{name}={path}: checkpoints in a folder with {" or ".join(map(repr, odd))} in its path, {whole}, could'
            f' not be read: use another'
        )
    return found


@contextlib.contextmanager
def exclusive_lock(folder: Path, *, patient: bool = False) -> Iterator[None]:
    """Keeps other runs out of a folder while the context lasts, by a lock that ends with the process.

    A lock that another host holds is waited for, at most LEASE_S: the host may be gone, preempted.

    Args:
      folder: a work directory, or another folder; it is made.
      patient: wait until another run has done, in place of an error.

    Raises:
      ConfigError: another run works there; the message names it. Or the file system has no locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise ConfigError(
            'this system has no fcntl, which keeps two runs apart: use Linux or macOS (or WSL)'
        ) from error
    Path(folder).mkdir(parents=True, exist_ok=True)
    # The package filelock knows no holder, waits for any alike, and may take a file's existence for a lock (of ENOSYS).
    with (Path(folder) / 'lock').open('a+') as file:
        end = time.monotonic() + LEASE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB))
                break
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read() or 'another run'
                if holder.endswith(f' on {socket.gethostname()}') or time.monotonic() > end:
                    raise ConfigError(
                        f'{folder} is in use by {holder}: wait for its end, or use another --workdir'
                    ) from error
                time.sleep(0.5)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                    raise
                raise ConfigError(
                    f'the file system of {folder} has no locks, which keep two runs apart ({error.strerror}): mount it'
                    f' with them (Lustre: -o flock), or use another --workdir'
                ) from error
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()}')
        file.flush()
        os.fsync(file.fileno())  # other hosts look at it
        yield


def peak_memory() -> int:
    """Returns the most memory that the process has held so far, bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def hide_accelerators() -> None:
    """Hides GPUs and TPUs from TensorFlow, which would take their memory; call it before TensorFlow does anything.

    It also keeps quiet what it has to say of itself, among that which of its operations oneDNN takes: none is used.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
    import tensorflow as tf

    for kind in ('GPU', 'TPU'):
        tf.config.set_visible_devices([], kind)


def cpus() -> int:
    """Returns how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
