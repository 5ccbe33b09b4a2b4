"""What the command lines share: a mistake in the flags ends the program with one line."""

import sys

from absl import flags

from artifacts_jax import config as configuration


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags, and reads the file that a --config names; for absl.app.run, as its flags_parser.

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
