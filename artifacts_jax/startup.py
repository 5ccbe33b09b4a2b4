"""What a command does to its own process before it begins, all of it left out with ARTIFACTS_JAX_PLAIN=1.

For speed it starts itself again, once, with other settings of the C library. Ctrl-C is one line and status 130 in place
of a stack trace, from the first import on. Files of configurations may say `from configs import default`, as those of
earlier versions do. Whoever debugs or embeds the program wants none of it.
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
KEPT = 'what was saved before is kept; the same command goes on from there'
PLAIN = 'ARTIFACTS_JAX_PLAIN'  # the environment variable: anything but '' or 0
RESTARTED = 'ARTIFACTS_JAX_RESTARTED'  # is set where GLIBC_TUNABLES is not the user's
MEMORY = ':'.join(
    f'glibc.malloc.{name}={value}'
    for name, value in {
        'hugetlb': 1,  # ask Linux for huge pages
        'mmap_max': 0,  # take large blocks from the heap, too,
        'trim_threshold': 1 << 40,  # of which nothing is given back
    }.items()
)


def is_command() -> bool:
    """Returns whether this is a command of the package, and no script or notebook that imports it.

    A command is `python -m artifacts_jax`, `python -m artifacts_jax.NAME`, or the console command.
    """
    arguments = iter(sys.orig_argv[1:])
    for argument in arguments:
        if argument in ('-X', '-W'):  # options of Python with a value
            next(arguments, None)
        elif argument == '-m':
            return next(arguments, '').partition('.')[0] == 'artifacts_jax'
        elif not argument.startswith('-'):
            return Path(argument).name == CONSOLE
    return False


def is_plain() -> bool:
    """Returns whether the user wants nothing of all this."""
    return os.environ.get(PLAIN, '') not in ('', '0')


def importing() -> None:
    """Ends a command at Ctrl-C without a stack trace of imports, which take a moment; the package begins with it."""
    if is_command() and not is_plain() and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupted)
    if RESTARTED in os.environ:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # see keep_memory


def interrupted(number: int, frame: types.FrameType | None) -> None:
    """Ends the program at once: an exception could come out of any library as another one, or not at all."""
    del frame
    end(f'interrupted: {KEPT}', 128 + number)


def end(text: str, status: int) -> None:
    """Ends the program at once, with a line on stderr."""
    try:
        os.write(2, f'{text}\n'.encode())
    finally:
        os._exit(status)


def begin() -> None:
    """Does the rest, when the command itself begins."""
    if is_plain():
        return
    if is_command():  # what a script or a notebook has done before would be done twice
        keep_memory()
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of a job in the background
        signal.signal(signal.SIGINT, interrupted)
    _lend_configs()


def keep_memory() -> None:
    """Starts the program again, once, such that glibc keeps memory, in huge pages; call it before anything else.

    On CPU, XLA takes the memory of all intermediate results afresh at every step and gives it back. To have it from
    Linux each time costs a quarter of the step in pages of 4 kB, and in pages of 2 MB a tenth, or more than half where
    Linux does not have so many at hand. The C library reads these settings only when a process begins. They are kept
    out of the way of whoever sets GLIBC_TUNABLES.
    """
    if sys.platform == 'linux' and 'GLIBC_TUNABLES' not in os.environ:
        os.environ.update({'GLIBC_TUNABLES': MEMORY, RESTARTED: '1'})
        with contextlib.suppress(OSError):  # it is only for speed
            # Ctrl-C waits until `importing` handles it, or it would end the new interpreter with a stack trace.
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


def given_environment() -> dict[str, str]:
    """Returns the environment as it was before `keep_memory`, for other programs."""
    ours = ('GLIBC_TUNABLES', RESTARTED) if RESTARTED in os.environ else ()
    return {name: value for name, value in os.environ.items() if name not in ours}


def _lend_configs():
    """Lets files say `from configs import default` anywhere, if no other package of that name is in the way."""
    spec = importlib.util.find_spec('configs')
    places = list(spec.submodule_search_locations or ()) if spec else []
    if spec is None or not (spec.origin or any(Path(place, 'default.py').exists() for place in places)):
        lent = types.ModuleType('configs')
        lent.__path__ = [*places, str(configs.FOLDER)]
        sys.modules['configs'] = lent
