"""Changes that a command makes to its own process at start; ARTIFACTS_JAX_PLAIN=1 disables all of them.

- The command restarts itself once with other malloc settings of the C library, for speed.
- Ctrl-C prints one line and exits with status 130, from the first import on.
- Configuration files can use `from configs import default`, as files of earlier versions do.

Disable them to debug the program or to embed it.
"""

import contextlib
import importlib.util
import os
import signal
import sys
import types
from pathlib import Path

from artifacts_jax import configs

CONSOLE = 'artifacts-jax'  # the console command, see cli.py
RESUME = 'saved state is kept; run the same command to resume'
PLAIN = 'ARTIFACTS_JAX_PLAIN'  # environment variable; any value except '' and 0 disables the changes
RESTARTED = 'ARTIFACTS_JAX_RESTARTED'  # set if this program, not the user, has set GLIBC_TUNABLES
MEMORY = ':'.join(
    f'glibc.malloc.{name}={value}'
    for name, value in {
        'hugetlb': 1,  # ask Linux for huge pages
        'mmap_max': 0,  # allocate large blocks on the heap, too
        'trim_threshold': 1 << 40,  # never return heap memory to the system
    }.items()
)


def is_command() -> bool:
    """Returns whether this process is a command of the package, not a script or notebook that imports it.

    A command is `python -m artifacts_jax`, `python -m artifacts_jax.NAME`, or the console command.
    """
    arguments = iter(sys.orig_argv[1:])
    for argument in arguments:
        if argument in ('-X', '-W'):  # Python options that take a value
            next(arguments, None)
        elif argument == '-m':
            return next(arguments, '').partition('.')[0] == 'artifacts_jax'
        elif not argument.startswith('-'):
            return Path(argument).name == CONSOLE
    return False


def is_plain() -> bool:
    """Returns whether the user has disabled these changes."""
    return os.environ.get(PLAIN, '') not in ('', '0')


def handle_ctrl_c_during_imports() -> None:
    """Makes Ctrl-C end a command without a stack trace; called by the first import of the package."""
    if is_command() and not is_plain() and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupted)
    if RESTARTED in os.environ:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # see restart_with_malloc_settings


def interrupted(number: int, frame: types.FrameType | None) -> None:
    """Ends the program at once: libraries may catch or replace an exception such as KeyboardInterrupt."""
    del frame
    end(f'interrupted: {RESUME}', 128 + number)


def end(text: str, status: int) -> None:
    """Prints a line to stderr and ends the program at once with an exit status."""
    try:
        os.write(2, f'{text}\n'.encode())
    finally:
        os._exit(status)


def set_up_process() -> None:
    """Applies the changes; called at the start of a command."""
    if is_plain():
        return
    if is_command():  # a restart would repeat what a script or notebook has already done
        restart_with_malloc_settings()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # ignored in a background job
        signal.signal(signal.SIGINT, interrupted)
    _provide_configs()


def restart_with_malloc_settings() -> None:
    """Restarts the program once with malloc settings that keep freed memory, in huge pages; call it first.

    On CPU, XLA allocates and frees the memory of all intermediate results at every step. Allocating it from Linux each
    time costs a quarter of the step with 4 kB pages, and a tenth with 2 MB pages, or more than half if too few of those
    are free. glibc reads these settings only at process start. If the user has set GLIBC_TUNABLES, nothing is changed.
    """
    if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
        os.environ.update({'GLIBC_TUNABLES': MEMORY, RESTARTED: '1'})
        with contextlib.suppress(OSError):  # without the restart the program is only slower
            # Block Ctrl-C until handle_ctrl_c_during_imports: it would end the new interpreter with a stack trace.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def original_environment() -> dict[str, str]:
    """Returns the environment variables as they were before the restart, for child processes."""
    added = ('GLIBC_TUNABLES', RESTARTED) if RESTARTED in os.environ else ()
    return {name: value for name, value in os.environ.items() if name not in added}


def _provide_configs():
    """Makes `from configs import default` work in any directory, unless another package has the name `configs`."""
    spec = importlib.util.find_spec('configs')
    paths = list(spec.submodule_search_locations or ()) if spec else []
    if spec is None or not (spec.origin or any(Path(path, 'default.py').exists() for path in paths)):
        module = types.ModuleType('configs')
        module.__path__ = [*paths, str(configs.FOLDER)]
        sys.modules['configs'] = module
