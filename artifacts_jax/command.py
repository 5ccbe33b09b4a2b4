"""What the command lines share: how they start and end; user errors are one-line messages."""

import difflib
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging
from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax import configs, startup
from artifacts_jax.devices import host

KEPT = startup.KEPT
HELP = {'--help', '-help', '-h', '-?'}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(main: Callable[..., None], required: Sequence[str] = (), arguments: Sequence[str] = ()) -> None:
    """Reads the flags and runs main(), which finds them in absl's FLAGS; arguments that are no flags are refused.

    An error that is foreseen ends the program with one line and status 1, Ctrl-C with one line and status 130.

    Args:
      main: the program; it imports JAX and what needs it itself, since that takes seconds.
      required: flags that must be given.
      arguments: names of the arguments that are no flags, which main takes; all must be given.
    """

    def start(given):
        if len(given) - 1 > len(arguments):
            sys.exit(f'error: unexpected arguments: {" ".join(given[1 + len(arguments) :])}')
        if len(given) - 1 < len(arguments):
            sys.exit(f'error: missing: {" ".join(arguments[len(given) - 1 :])}')
        for name in required:
            if flags.FLAGS[name].value is None:
                sys.exit(f'error: --{name}= is missing: {flags.FLAGS[name].help}')
        logging.set_verbosity(logging.ERROR)  # of the libraries
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
        host.set_up_jax()
        try:
            main(*given[1:])
        except (configuration.UserError, OSError) as error:
            sys.exit(f'error: {explain(error)}')

    startup.begin()
    nowhere = open(os.devnull, 'w')  # noqa: SIM115 (for what has been closed from the start)
    sys.stdout, sys.stderr = (SafeStream(stream or nowhere) for stream in (sys.stdout, sys.stderr))
    app.run(start, flags_parser=parse)


def explain(error: Exception) -> str:
    """Returns what a person is told of an error that is foreseen, or of the system's."""
    if isinstance(error, configuration.UserError) or not isinstance(error, OSError):
        return str(error)
    where = error.filename2 or error.filename
    if error.errno in FULL:
        return f'no room on the disk of {where or "the work directory"}: make some and run the same command'
    return f'{where}: {error.strerror}' if where and error.strerror else str(error)


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags, and reads the file that a --config names.

    A misspelt flag, key, file or variant ends the program with one line that says what would do.
    """
    if HELP & set(arguments):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)  # of absl's own the exit status is 1
    try:
        arguments = _locate(arguments)
        rest = flags.FLAGS(arguments)
        if 'config' in flags.FLAGS and flags.FLAGS['config'].present:
            _ = getattr(flags.FLAGS.config, 'seed', None)  # a file that could not be read says so only when it is used
            if not isinstance(flags.FLAGS.config, ConfigDict):
                raise configuration.ConfigError('the get_config of --config returns no ConfigDict')
        return rest
    except (flags.Error, configuration.UserError) as error:
        problem = _reason(error)
    except Exception as error:  # of the configuration's file, which may have any
        problem = _reason(error)
        if isinstance(error, AttributeError):  # perhaps a key that the configuration has not declared
            from artifacts_jax.configs import default

            try:
                configuration.check_unknown(arguments, default.get_config())
            except configuration.ConfigError as unknown:
                sys.exit(f'error: {unknown}')
        if not isinstance(problem, configuration.UserError):
            problem = f'the configuration cannot be read: {type(problem).__name__}: {problem}{_place(problem)}'
    sys.exit(f'error: {" ".join(str(problem).split())}')


class SafeStream:
    """A stream that nobody may listen to any more: its pipe is closed, as by `| head`.

    Then the program is told to stop, so that a stage that trains saves its state. Characters that the stream's encoding
    lacks become question marks.
    """

    def __init__(self, stream):
        if hasattr(stream, 'reconfigure'):
            stream.reconfigure(errors='replace')
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes text."""
        return self._try(self._stream.write, text)

    def flush(self) -> None:
        """Writes what is still kept."""
        self._try(self._stream.flush)

    def _try(self, function, *arguments):
        try:
            return function(*arguments)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # nothing trains
                startup.end(f'nobody reads the output any more: {KEPT}', 128 + signal.SIGPIPE)
            signal.raise_signal(signal.SIGTERM)
            return 0


def _locate(arguments):
    """Returns the arguments with the file that --config names as it is found.

    That is where the path says, or, of configs/NAME.py or NAME, among the configurations of the package. A JSON file is
    read by configs/saved.py.
    """
    found = list(arguments)
    for n, argument in enumerate(arguments):
        name, equals, value = argument.partition('=')
        if name.lstrip('-') != 'config' or not name.startswith('-'):
            continue
        if equals:
            found[n] = f'{name}={_config_file(value)}'
        elif n + 1 < len(arguments):
            found[n + 1] = _config_file(arguments[n + 1])
    return found


def _config_file(value):
    path, colon, variant = value.partition(':')
    if not path:
        raise configuration.ConfigError('--config= is empty: name a file, such as configs/demo.py')
    path = os.path.expanduser(path)
    if path.endswith('.json'):
        if Path(path).is_file():
            return f'{configs.FOLDER / "saved.py"}:{path}{colon}{variant}'
    elif Path(path).is_file():
        return f'{path}{colon}{variant}'
    names = {file.relative_to(configs.FOLDER).with_suffix('').as_posix(): file for file in configs.FOLDER.rglob('*.py')}
    paths = {f'configs/{name}.py': file for name, file in names.items()}
    if file := paths.get(path) or names.get(path):
        return f'{file}{colon}{variant}'
    spelled = paths if Path(path).suffix or path.startswith('configs') else names
    known = [name for name, file in spelled.items() if _is_named(file)]
    nearest = difflib.get_close_matches(path, known, n=1, cutoff=0)[0]
    what = 'is a folder' if Path(path).is_dir() else 'is not there'
    raise configuration.ConfigError(
        f'--config={value}: {path} {what}; it is a file of Python or JSON, or the name of a configuration of the'
        f' package, such as {nearest}'
    )


def _is_named(file):
    """Returns whether a file of the package is a configuration that a person would name."""
    return file.name != 'saved.py' and 'def get_config' in file.read_text()


def _reason(error):
    """Returns the error that a person can act on: absl wraps those of a configuration's file in text of its own."""
    found, reason = error, error
    while reason is not None:
        if isinstance(reason, configuration.UserError | OSError):
            found = reason  # the innermost
        reason = reason.__cause__ or reason.__context__
    return found


def _place(error):
    """Returns where in a file an error arose."""
    if isinstance(error, SyntaxError) or error.__traceback__ is None:  # which says so itself
        return ''
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    return f' ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})'
