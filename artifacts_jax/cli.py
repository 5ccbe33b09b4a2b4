"""The console command artifacts-jax, which has each command of the package as a sub-command.

artifacts-jax train --config=demo --workdir=runs/demo
artifacts-jax figures --workdir=runs/demo
artifacts-jax figures --help

A sub-command runs as `python -m artifacts_jax.MODULE` does, with the same flags, output and exit status.
"""

import difflib
import runpy
import sys

from artifacts_jax.startup import CONSOLE
from artifacts_jax.version import __version__

COMMANDS = {  # {sub-command: (its module, what it does)}
    'train': ('main', "runs a configuration's stages in order, or resumes them"),
    'prepare': ('prepare', 'downloads a tfds data set, or converts one'),
    'figures': ('figures', "writes the paper's figures from a run"),
    'predict': ('predict', 'draws what a detector or a segmenter finds in images'),
    'tables': ('tables', "runs the transfer tasks and prints the paper's tables"),
    'benchmark': ('benchmark', 'measures how fast a configuration trains'),
    'study': ('study', 'runs variants over seeds and prints their table'),
    'tf1': ('tf1', "imports the authors' TensorFlow 1 checkpoints"),
}


def main() -> None:
    """Runs the sub-command of the command line; a mistake ends the program with one line and status 1."""
    name, *arguments = sys.argv[1:] or ['--help']
    if name in ('--help', '-h', 'help'):
        print(overview())
    elif name == '--version':
        print(f'artifacts_jax {__version__}')
    elif name in COMMANDS:
        sys.argv = [sys.argv[0], *arguments]
        runpy.run_module(f'artifacts_jax.{COMMANDS[name][0]}', run_name='__main__', alter_sys=True)
    else:
        sys.exit(f'error: {problem(name)}')


def overview() -> str:
    """Returns the sub-commands as text, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {what}' for name, (_, what) in COMMANDS.items()]
    return '\n'.join(
        [
            f'usage: {CONSOLE} COMMAND [--FLAG=VALUE ...]',
            '',
            *lines,
            '',
            f'{CONSOLE} COMMAND --help lists the flags of a command; {CONSOLE} --version prints the version.',
        ]
    )


def problem(name: str) -> str:
    """Returns what is wrong with a sub-command that does not exist, and what to do."""
    if name.startswith('-'):
        return f'{CONSOLE} {name}: the command is missing; expected one of {", ".join(COMMANDS)}, before its flags'
    nearest = difflib.get_close_matches(name, COMMANDS, n=1, cutoff=0)[0]
    return f'{CONSOLE} {name}: unknown command; the nearest is {nearest}; {CONSOLE} --help lists all'
