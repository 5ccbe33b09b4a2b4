"""Commands started as a user does, in forks of one process that has imported what they import: in tenths of a second.

python -m tests.forks    reads a line of JSON for each start, and answers with one
"""

import dataclasses
import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from pathlib import Path

import jax

ROOT = Path(__file__).parents[1]
PATIENCE = 240  # seconds that a command may take


@dataclasses.dataclass
class Forks:
    """Starts commands; use it as a context. `folder` keeps compiled programs and what is printed."""

    folder: Path

    def __enter__(self):
        environment = {
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'XLA_FLAGS': '--xla_cpu_use_fusion_emitters=false',
            'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'cache'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
        self._server = subprocess.Popen([sys.executable, '-m', 'tests.forks'], cwd=ROOT, env=environment, **pipes)
        return self

    def __exit__(self, *exception):
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def start(self, *arguments, module='main', cwd=ROOT, **environment):
        """Returns (exit status, stdout, stderr) of a command, which runs to its end."""
        asked = {'module': module, 'arguments': list(map(str, arguments)), 'cwd': str(cwd), 'environment': environment}
        print(json.dumps({**asked, 'folder': str(self.folder)}), file=self._server.stdin, flush=True)
        status = json.loads(self._server.stdout.readline())
        return status, *((self.folder / name).read_text() for name in ('out', 'err'))

    def refused(self, *arguments, **options):
        """Returns the one line that a command ends with, with status 1 or 2; nothing else is printed as an error."""
        status, _, said = self.start(*arguments, **options)
        assert status in (1, 2), (arguments, status, said)
        assert said.startswith('error: '), (arguments, said)
        assert said.count('\n') == 1, (arguments, said)
        return said

    def done(self, *arguments, **options):
        """Returns what a command prints that ends well and has nothing to say on stderr."""
        status, printed, said = self.start(*arguments, **options)
        assert (status, said) == (0, ''), (arguments, status, said)
        return printed


def _run(asked):
    """Becomes a command, and ends."""
    for number, name in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(Path(asked['folder']) / name, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked['cwd'])
    os.environ.update(asked['environment'])
    if platforms := asked['environment'].get('JAX_PLATFORMS'):
        jax.config.update('jax_platforms', platforms)  # JAX itself has read it
    sys.path[0] = asked['cwd']
    sys.argv = [asked['module'], *asked['arguments']]
    status = 0
    try:
        runpy.run_module(f'artifacts_jax.{asked["module"]}', run_name='__main__', alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _wait(child):
    """Returns the exit status of a process, which is killed if it takes long."""
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.alarm(PATIENCE)
    _, ended = os.waitpid(child, 0)
    signal.alarm(0)
    return os.waitstatus_to_exitcode(ended)


def main():
    """Answers starts until there are no more."""
    from artifacts_jax import pipeline  # noqa: F401 (what takes long)

    warnings.filterwarnings('ignore', message='os.fork', category=RuntimeWarning)  # no device has been touched yet
    warnings.filterwarnings('ignore', message='.*fork', category=DeprecationWarning)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run(json.loads(line))
        print(json.dumps(_wait(child)), flush=True)


if __name__ == '__main__':
    main()
