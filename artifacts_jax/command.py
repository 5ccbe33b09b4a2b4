"""Start and end of every command: flags, configuration files, exit status, and one-line messages for user errors."""

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

HELP = {'--help', '-help', '-h', '-?'}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run(main: Callable[..., None], required: Sequence[str] = (), arguments: Sequence[str] = ()) -> None:
    """Parses the flags and calls main(), which reads them from absl's FLAGS.

    A user error ends the program with a one-line message and status 1, Ctrl-C with a one-line message and status 130.

    Args:
      main: the program. It imports JAX itself, because that import takes seconds.
      required: names of the flags that must be set.
      arguments: names of the positional arguments of main, all of which are required; others are an error.
    """

    def start(argv):
        _, *values = argv
        if len(values) > len(arguments):
            sys.exit(f'error: unexpected arguments: {" ".join(values[len(arguments) :])}')
        if len(values) < len(arguments):
            sys.exit(f'error: missing: {" ".join(arguments[len(values) :])}')
        for name in required:
            if flags.FLAGS[name].value is None:
                sys.exit(f'error: --{name}= is missing: {flags.FLAGS[name].help}')
        logging.set_verbosity(logging.ERROR)  # of the libraries
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
        host.set_up_jax()
        try:
            main(*values)
        except (configuration.UserError, OSError) as error:
            sys.exit(f'error: {format_error(error)}')

    startup.set_up_process()
    null = open(os.devnull, 'w')  # noqa: SIM115 (replaces a stream that is closed from the start)
    sys.stdout, sys.stderr = (SafeStream(stream or null) for stream in (sys.stdout, sys.stderr))
    app.run(start, flags_parser=parse)


def format_error(error: Exception) -> str:
    """Returns the message for a user error or an error of the operating system."""
    if isinstance(error, configuration.UserError) or not isinstance(error, OSError):
        return str(error)
    path = error.filename2 or error.filename
    if error.errno in FULL:
        return f'the disk of {path or "the work directory"} is full; free some space and run the same command again'
    return f'{path}: {error.strerror}' if path and error.strerror else str(error)


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags and reads the configuration file of --config; returns the positional arguments.

    A misspelt flag, key, file or variant ends the program with a one-line message that suggests the nearest name.
    """
    if HELP & set(arguments):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)  # absl's own --help exits with status 1
    try:
        arguments = _resolve_config(arguments)
        rest = flags.FLAGS(arguments)
        if 'config' in flags.FLAGS and flags.FLAGS['config'].present:
            _ = getattr(flags.FLAGS.config, 'seed', None)  # absl raises errors of the file only on first use
            if not isinstance(flags.FLAGS.config, ConfigDict):
                raise configuration.ConfigError('--config: get_config of the file must return a ConfigDict')
        return rest
    except (flags.Error, configuration.UserError) as error:
        problem = _find_cause(error)
    except Exception as error:  # the configuration file is Python code, which may raise any error
        problem = _find_cause(error)
        if isinstance(error, AttributeError):  # possibly an unknown key
            from artifacts_jax.configs import default

            try:
                configuration.check_unknown(arguments, default.get_config())
            except configuration.ConfigError as unknown:
                sys.exit(f'error: {unknown}')
        if not isinstance(problem, configuration.UserError):
            problem = (
                f'the configuration cannot be read: {type(problem).__name__}: {problem}{_format_location(problem)}'
            )
    sys.exit(f'error: {" ".join(str(problem).split())}')


class SafeStream:
    """An output stream whose reader may exit, as in `| head`.

    When the pipe is closed, sends SIGTERM to the process, so that a training stage saves its state. Characters that the
    encoding of the stream lacks become question marks.
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
        """Writes the buffered text."""
        self._try(self._stream.flush)

    def _try(self, function, *arguments):
        try:
            return function(*arguments)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:  # no stage is training
                startup.end(f'the output is no longer read; {startup.RESUME}', 128 + signal.SIGPIPE)
            signal.raise_signal(signal.SIGTERM)
            return 0


def _resolve_config(arguments):
    """Returns the arguments with the value of --config replaced by the path of the file.

    The value is a path, or configs/NAME.py or NAME of a configuration of the package. JSON files are read by
    configs/saved.py.
    """
    resolved = list(arguments)
    for n, argument in enumerate(arguments):
        name, equals, value = argument.partition('=')
        if name.lstrip('-') != 'config' or not name.startswith('-'):
            continue
        if equals:
            resolved[n] = f'{name}={_find_config_file(value)}'
        elif n + 1 < len(arguments):
            resolved[n + 1] = _find_config_file(arguments[n + 1])
    return resolved


def _find_config_file(value):
    path, colon, variant = value.partition(':')
    if not path:
        raise configuration.ConfigError('--config= is empty; expected a file, such as configs/demo.py')
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
    candidates = paths if Path(path).suffix or path.startswith('configs') else names
    known = [name for name, file in candidates.items() if _is_configuration(file)]
    nearest = difflib.get_close_matches(path, known, n=1, cutoff=0)[0]
    problem = 'is a directory' if Path(path).is_dir() else 'does not exist'
    raise configuration.ConfigError(
        f'--config={value}: {path} {problem}; expected a Python or JSON file, or the name of a configuration of the'
        f' package; the nearest is {nearest}'
    )


def _is_configuration(file):
    """Returns whether a file of the package is a configuration for users."""
    return file.name != 'saved.py' and 'def get_config' in file.read_text()


def _find_cause(error):
    """Returns the innermost user error among the causes of an error, because absl wraps errors of a configuration."""
    cause, current = error, error
    while current is not None:
        if isinstance(current, configuration.UserError | OSError):
            cause = current
        current = current.__cause__ or current.__context__
    return cause


def _format_location(error):
    """Returns the file and line that raised an error, as text."""
    if isinstance(error, SyntaxError) or error.__traceback__ is None:  # its message has the location
        return ''
    last = error.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    return f' ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})'
