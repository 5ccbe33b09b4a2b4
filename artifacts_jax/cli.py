"""The console command artifacts-jax. Its sub-commands are the commands of the package.

artifacts-jax train --config=demo --workdir=runs/demo
artifacts-jax figures --workdir=runs/demo
artifacts-jax figures --help

A sub-command behaves like `python -m artifacts_jax.MODULE`: same flags, same output, same exit status.
"""

import difflib
import runpy
import sys

from artifacts_jax.startup import CONSOLE
from artifacts_jax.version import __version__

COMMANDS = {  # {sub-command: (module, description)}
    'train': ('main', "runs a configuration's stages in order, or resumes them"),
    'prepare': ('prepare', 'downloads a tfds data set, or converts one'),
    'figures': ('figures', "writes the paper's figures from a run"),
    'predict': ('predict', 'draws the predictions of a detector or a segmenter on images'),
    'tables': ('tables', "runs the transfer tasks and prints the paper's tables"),
    'benchmark': ('benchmark', 'measures how fast a configuration trains'),
    'study': ('study', 'runs variants over seeds and prints their table'),
    'tf1': ('tf1', "imports the authors' TensorFlow 1 checkpoints"),
}


def main() -> None:
    """Runs the sub-command of the command line. A user error is a one-line message and exit status 1."""
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('--help', '-h', 'help'):
        print(format_overview())
    elif name == '--version':
        print(f'artifacts_jax {__version__}')
    elif name in COMMANDS:
        sys.argv = [sys.argv[0], *arguments]
        runpy.run_module(f'artifacts_jax.{COMMANDS[name][0]}', run_name='__main__', alter_sys=True)
    else:
        sys.exit(f'error: {describe_error(name)}')


def format_overview() -> str:
    """Returns the usage text, with one line for each sub-command."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {description}' for name, (_, description) in COMMANDS.items()]
    return '\n'.join(
        [
            f'usage: {CONSOLE} COMMAND [--FLAG=VALUE ...]',
            '',
            *lines,
            '',
            f'{CONSOLE} COMMAND --help lists the flags of a command; {CONSOLE} --version prints the version.',
        ]
    )


def describe_error(name: str) -> str:
    """Returns the error message for an unknown or missing sub-command."""
    if name.startswith('-'):
        return f'{CONSOLE} {name}: the command is missing; expected one of {", ".join(COMMANDS)} before the flags'
    nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0)[0]
    return f'{CONSOLE} {name}: unknown command; the nearest is {nearest}; {CONSOLE} --help lists all commands'
