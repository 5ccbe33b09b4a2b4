"""The processes of a run on several hosts: start, synchronisation, and end after an error.

Each host has one process, which uses all its devices. All processes run the same program on the same work directory, on
a file system that all hosts share. Only the first process prints and writes files, except checkpoints and exports,
which all processes write.
"""

import contextlib
import faulthandler
import os
import re
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from artifacts_jax.config import ConfigError

HEARTBEAT_S = 30  # seconds without a heartbeat after which a process counts as dead and the others end
GRACE_S = 5  # seconds that the first process lives after an error, so that the others can report theirs
LOOK_S = 60  # seconds that a network file system may show a host the old content of a file


def join(coordinator: str = '', count: int | None = None, index: int | None = None, *, timeout: int = 50) -> None:
    """Connects this process with the others of its run; call it before JAX uses a device.

    Without arguments, the processes are those of the Cloud TPU, or of a SLURM job step with several tasks. On other
    platforms the process runs by itself.

    Args:
      coordinator: 'HOST:PORT' of the first process.
      count: the number of processes.
      index: the number of this process, from 0.
      timeout: seconds to wait for the other processes; then the program ends with an error.

    Raises:
      ConfigError: some arguments are missing or invalid, or the coordinator's address cannot be used.
    """
    options = [coordinator or None, count, index]
    if all(x is None for x in options):
        if not (_in_slurm_step() or _on_tpu()):
            return
        settings = {'local_device_ids': _slurm_gpus()}
    elif count is None or index is None or not 0 <= index < count or not re.fullmatch(r'.+:\d+', coordinator):
        raise ConfigError(
            f'--coordinator={coordinator} --processes={count} --process={index}: give all three, such as'
            f' --coordinator=10.0.0.1:9876 --processes=2 --process=0; --process must be from 0 to --processes - 1'
        )
    else:
        settings = {'coordinator_address': coordinator, 'num_processes': count, 'process_id': index}
        settings['cluster_detection_method'] = 'deactivate'
    jax.config.update('jax_enable_preemption_service', False)  # it would intercept SIGTERM
    timer = threading.Timer(timeout, _end_without_others, (timeout, options))  # JAX itself aborts with a stack trace
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **settings,
            initialization_timeout=2 * timeout,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and not any(options) and _on_tpu():  # a notebook's TPU, on one host
            return
        raise ConfigError(f'the processes cannot connect: {" ".join(str(error).split())[:300]}') from error
    finally:
        timer.cancel()
    faulthandler.disable()  # JAX reports the death of another process and aborts this one, whose stack is of no use
    if not is_first():
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 (open until the process ends)


def global_devices() -> list[jax.Device]:
    """Returns the devices of all processes.

    Raises:
      ConfigError: JAX finds no device of the platform in JAX_PLATFORMS.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
        reason = str(error).split(' (set JAX_PLATFORMS')[0] or 'there is no such device'
        raise ConfigError(
            f'JAX_PLATFORMS={platforms}: {reason}; unset the variable, or install the extra cuda or tpu'
        ) from error


def is_first() -> bool:
    """Returns whether this process is the first, which prints and writes files."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes have reached this call."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def broadcast(flag: bool) -> bool:
    """Returns the flag of the first process, in all processes."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set in any process, in all processes."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def run_on_first_process(function: Callable[[], None], what: str) -> None:
    """Runs a function in the first process only, while the others wait.

    Args:
      function: the function.
      what: what the function does, for the message, such as 'write DIRECTORY'.

    Raises:
      Exception: in the first process, the error of the function.
      ConfigError: in the other processes, if the function failed.
    """
    error = None
    if is_first():
        try:
            function()
        except Exception as caught:
            error = caught
    failed = broadcast(error is not None)
    if error is not None:
        raise error
    if failed:
        raise ConfigError(f'the first process could not {what}; see its error message')


def check_shared(workdir: Path) -> None:
    """Raises ConfigError in all processes if some do not see the same work directory within LOOK_S seconds."""
    if jax.process_count() == 1:
        return
    lock = Path(workdir) / 'lock'  # contains the name of the first process

    def checksum():
        return np.uint32(zlib.crc32(lock.read_bytes()) if lock.exists() else 0)

    written, end = multihost_utils.broadcast_one_to_all(checksum()), time.monotonic() + LOOK_S
    while checksum() != written and time.monotonic() < end:
        time.sleep(0.5)
    same = multihost_utils.process_allgather(np.array(checksum() == written)).ravel()
    others = [str(n) for n, is_same in enumerate(same) if not is_same]
    if others:
        raise ConfigError(
            f'{workdir} is not on a file system that all hosts share: processes {", ".join(others)} cannot read what'
            f' process 0 wrote; use a folder that is mounted on all hosts (NFS, Filestore, Lustre)'
        )


def check_batch(name: str, batch_size: int) -> None:
    """Raises ConfigError if a global batch size, the value of the key `name`, is not divisible by the processes."""
    if batch_size % jax.process_count():
        raise ConfigError(
            f'{name}={batch_size} is not divisible by the {jax.process_count()} processes; use {round_up(batch_size)}'
        )


def round_up(count: int) -> int:
    """Returns the smallest multiple of the number of processes that is at least `count`."""
    return -(-count // jax.process_count()) * jax.process_count()


def local_shard(tree: PyTree) -> PyTree:
    """Returns this process's shard of a tree of [B, ...] arrays; the inverse of `gather`."""
    return jax.tree.map(lambda x: np.split(x, jax.process_count())[jax.process_index()], tree)


def gather(tree: PyTree) -> PyTree:
    """Returns the shards of all processes, trees of [b, ...] arrays, concatenated, in all processes."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


@contextlib.contextmanager
def end_together(expected: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Ends this process at once after an error in the context, if the run has several processes.

    Without this, Python would wait at exit for the other processes, which wait for this one. The others then end with
    an error of JAX: a lost connection or a missing heartbeat.

    Args:
      expected: errors that are reported without a stack trace.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, expected):
            print(f'error: {error}', file=sys.stderr, flush=True)
            if is_first():  # its end aborts the others, which may be about to report the same error
                time.sleep(GRACE_S)
            os._exit(1)
        traceback.print_exc()
        reason = next(iter(str(error).splitlines()), '')[:300]
        print(
            f'error: process {jax.process_index()} of {jax.process_count()} stopped with {type(error).__name__}:'
            f' {reason}\nIf another process or its host has died, start all processes again: the run resumes from its'
            f' newest checkpoint.',
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os._exit(1)


def _end_without_others(timeout, options):
    print(
        f'error: the other processes did not connect within {timeout} seconds (--coordinator, --processes, --process:'
        f' {options}); start all processes with the same coordinator, at an address that all hosts can reach',
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _in_slurm_step():
    return int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1


def _slurm_gpus():
    """Returns all GPUs of a node with one task, else None; JAX by default takes one GPU per task."""
    tasks, nodes, gpus = (os.environ.get(f'SLURM_{n}') for n in ('STEP_NUM_TASKS', 'STEP_NUM_NODES', 'GPUS_ON_NODE'))
    return list(range(int(gpus))) if gpus and tasks == nodes else None


def _on_tpu():
    return os.environ.get('TPU_ML_PLATFORM') == 'JAX'  # set by JAX on a TPU
