"""The processes of a run on several hosts: how they find each other, agree, and end together.

Each host has one process, with all its devices. All run the same program on the same work directory, on a file system
that all see. The first alone prints, and writes what the work directory holds, but for checkpoints and exports, which
all write.
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

HEARTBEAT_S = 30  # a process that is not heard of for so long is dead, and the others end
GRACE_S = 5  # for so long the first process stays after an error that others may meet, too
LOOK_S = 60  # for so long a network's file system may show a host what a file was before


def join(coordinator: str = '', count: int | None = None, index: int | None = None, *, patience: int = 50) -> None:
    """Joins this process to the others of its run; call it before JAX has touched a device.

    Without arguments, the platform says which processes there are: a Cloud TPU, or SLURM within a job step of several
    tasks. Elsewhere the process stays alone.

    Args:
      coordinator: 'HOST:PORT' of the first process, at which all meet.
      count: the number of processes.
      index: which of them this one is.
      patience: seconds that a process waits for the others to start; then the program ends with an error.

    Raises:
      ConfigError: the arguments do not fit one another, or the address of the first process cannot be used.
    """
    given = [coordinator or None, count, index]
    if all(x is None for x in given):
        if not (_in_slurm_step() or _on_tpu()):
            return
        options = {'local_device_ids': _slurm_gpus()}
    elif None in given or not 0 <= index < count or not re.fullmatch(r'.+:\d+', coordinator):
        raise ConfigError(
            f'--coordinator={coordinator} --processes={count} --process={index}: give all three, such as'
            f' --coordinator=10.0.0.1:9876 --processes=2 --process=0, the last from 0 to one less than the processes'
        )
    else:
        options = {'coordinator_address': coordinator, 'num_processes': count, 'process_id': index}
        options['cluster_detection_method'] = 'deactivate'
    jax.config.update('jax_enable_preemption_service', False)  # it would take SIGTERM from us, and from the system
    alone = threading.Timer(patience, _leave_alone, (patience, given))  # JAX itself would abort, with a stack trace
    alone.daemon = True
    alone.start()
    try:
        jax.distributed.initialize(
            **options,
            initialization_timeout=2 * patience,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ValueError) and not any(given) and _on_tpu():  # a notebook's TPU, of one host
            return
        raise ConfigError(f'the processes of the run cannot meet: {" ".join(str(error).split())[:300]}') from error
    finally:
        alone.cancel()
    faulthandler.disable()  # when another process dies, JAX says so and aborts this one: no need of its stack
    if not is_first():
        sys.stdout = open(os.devnull, 'w')  # noqa: SIM115 (it lasts as long as the process)


def available() -> list[jax.Device]:
    """Returns all devices, of all processes.

    Raises:
      ConfigError: JAX has none of the kind that JAX_PLATFORMS asks for.
    """
    try:
        return jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = jax.config.jax_platforms
        reason = str(error).split(' (set JAX_PLATFORMS')[0] or 'there is none'
        raise ConfigError(
            f'JAX_PLATFORMS={asked}, but {reason}; unset it, or install what it needs: the extra cuda or tpu'
        ) from error


def is_first() -> bool:
    """Whether this process is the one that prints and writes."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Is a barrier: returns when all processes have called it."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def broadcast(flag: bool) -> bool:
    """Returns the first process's flag, in all."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))


def any_process(flag: bool) -> bool:
    """Returns whether the flag is set in any process, in all."""
    return flag if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(flag)).any())


def run_on_first_process(function: Callable[[], None], what: str) -> None:
    """Runs a function in the first process alone, while the others wait.

    Raises:
      its error, there; in the others ConfigError.
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
        raise ConfigError(f'the first process could not {what}: see its error')


def check_shared(workdir: Path) -> None:
    """Raises ConfigError, in all processes, if some do not see the same work directory, at once or within LOOK_S."""
    if jax.process_count() == 1:
        return
    lock = Path(workdir) / 'lock'  # in which the first process has written who it is

    def seen():
        return np.uint32(zlib.crc32(lock.read_bytes()) if lock.exists() else 0)

    written, end = multihost_utils.broadcast_one_to_all(seen()), time.monotonic() + LOOK_S
    while seen() != written and time.monotonic() < end:
        time.sleep(0.5)
    same = multihost_utils.process_allgather(np.array(seen() == written)).ravel()
    blind = [str(n) for n, sees in enumerate(same) if not sees]
    if blind:
        raise ConfigError(
            f'{workdir} is not on a file system that all hosts share: processes {", ".join(blind)} do not see what'
            f' process 0 wrote there; use a folder of one that is mounted on all (NFS, Filestore, Lustre)'
        )


def check_batch(name: str, batch_size: int) -> None:
    """Raises ConfigError if a global batch, the configuration's key `name`, does not divide by the processes."""
    if batch_size % jax.process_count():
        raise ConfigError(
            f'{name}={batch_size} does not divide by the {jax.process_count()} processes: use {divisible(batch_size)}'
        )


def divisible(count: int) -> int:
    """Returns the least number, from `count` on, that divides by the processes."""
    return -(-count // jax.process_count()) * jax.process_count()


def part(tree: PyTree) -> PyTree:
    """Returns this process's equal part of a tree of [B, ...] arrays; the inverse of `gathered`."""
    return jax.tree.map(lambda x: np.split(x, jax.process_count())[jax.process_index()], tree)


def gather(tree: PyTree) -> PyTree:
    """Returns a tree of [b, ...] arrays with the parts of all processes one after another, in all."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)


@contextlib.contextmanager
def end_together(expected: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Ends one of several processes at once, in this context, on an error that the others may know nothing of.

    They find it gone; by itself Python would first wait for them, who wait for it. What they then get is an error of
    JAX's, of the connection or for want of a heartbeat.

    Args:
      expected: errors that are told without a stack trace.
    """
    try:
        yield
    except Exception as error:
        if jax.process_count() == 1:
            raise
        if isinstance(error, expected):
            print(f'error: {error}', file=sys.stderr, flush=True)
            if is_first():  # whose end aborts the others, which may be about to say the same
                time.sleep(GRACE_S)
            os._exit(1)
        traceback.print_exc()
        reason = next(iter(str(error).splitlines()), '')[:300]
        print(
            f'error: process {jax.process_index()} of {jax.process_count()} has stopped on {type(error).__name__}:'
            f' {reason}\nIf another process or its host is gone, start all again: the run goes on from its newest'
            f' checkpoint.',
            file=sys.stderr,
            flush=True,
        )
        sys.stdout.flush()
        os._exit(1)


def _leave_alone(patience, given):
    print(
        f'error: the processes of the run have not met within {patience} seconds (--coordinator, --processes and'
        f' --process: {given}); start all of them, with the same coordinator, which the others can reach',
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)


def _in_slurm_step():
    return int(os.environ.get('SLURM_STEP_NUM_TASKS', '1')) > 1


def _slurm_gpus():
    """Returns all of a node's GPUs if it has one task; by itself JAX would take one for each task."""
    tasks, nodes, gpus = (os.environ.get(f'SLURM_{n}') for n in ('STEP_NUM_TASKS', 'STEP_NUM_NODES', 'GPUS_ON_NODE'))
    return list(range(int(gpus))) if gpus and tasks == nodes else None


def _on_tpu():
    return os.environ.get('TPU_ML_PLATFORM') == 'JAX'  # JAX says so when it has found a TPU
