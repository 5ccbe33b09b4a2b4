"""What the command lines share: how they start, and that a mistake in the flags ends them with one line."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from artifacts_jax import config as configuration
from artifacts_jax.devices import host


def run(main: Callable[[], None], required: Sequence[str] = ()) -> None:
    """Reads the flags and runs main(), which finds them in absl's FLAGS; arguments that are no flags are refused.

    Args:
      main: the program; it imports JAX and what needs it itself, since that takes seconds.
      required: flags that must be given.
    """

    def start(arguments):
        if len(arguments) > 1:
            raise app.UsageError(f'unexpected arguments: {" ".join(arguments[1:])}')
        logging.set_verbosity(logging.WARNING)
        os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
        host.set_up_jax()
        main()

    host.keep_memory()
    flags.mark_flags_as_required(list(required))
    app.run(start, flags_parser=parse)


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags, and reads the file that a --config names.

    A misspelt flag, key, file or variant ends the program with one line that says what would do.
    """
    try:
        rest = flags.FLAGS(arguments)
        if 'config' in flags.FLAGS and flags.FLAGS.config is not None:
            _ = flags.FLAGS.config.seed  # a file that could not be read says so only when it is used
        return rest
    except (flags.Error, OSError, ValueError) as error:
        sys.exit(f'error: {" ".join(str(_reason(error)).split())}')
    except AttributeError:  # a key that the configuration has not declared
        from configs import default

        try:
            configuration.check_unknown(arguments, default.get_config())
        except configuration.ConfigError as error:
            sys.exit(f'error: {error}')
        raise


def _reason(error):
    """Returns the error that a person can act on: absl wraps those of a configuration's file in text of its own."""
    reason = error
    while reason is not None:
        if isinstance(reason, configuration.ConfigError | OSError):
            return reason
        reason = reason.__cause__ or reason.__context__
    return error
