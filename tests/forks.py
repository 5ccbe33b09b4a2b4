"""Commands started as a user does, in forks of one process that has imported what they import: in tenths of a second.

python -m tests.forks    reads a line of JSON for each start, and answers with a line: the number of the new process
"""

import atexit
import contextlib
import dataclasses
import gc
import itertools
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

import jax

from artifacts_jax.drawing import plots, sheet
from tests.compiling import xla_flags

ROOT = Path(__file__).parents[1]
PATIENCE = 240  # seconds that a command may take


@dataclasses.dataclass
class Fork:
    """A command that has been started; it is used as a subprocess.Popen. `folder` keeps what it prints."""

    pid: int
    folder: Path
    returncode: int | None = None

    def poll(self):
        """Returns the exit status, None as long as it runs."""
        if self.returncode is None:
            with contextlib.suppress(FileNotFoundError):
                self.returncode = int((self.folder / 'status').read_text())
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=PATIENCE):
        """Returns (stdout, stderr) when it has ended, which it is made to if it takes long."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
            time.sleep(0.01)
        return tuple((self.folder / name).read_text() for name in ('out', 'err'))


@dataclasses.dataclass
class Forks:
    """Starts commands; use it as a context. `folder` keeps what is printed, `cache` compiled programs."""

    folder: Path
    cache: Path

    def __enter__(self):
        environment = {
            **os.environ,
            'PYTHONPATH': str(ROOT),
            'XLA_FLAGS': xla_flags(1),
            'JAX_COMPILATION_CACHE_DIR': str(self.cache),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
        self._server = subprocess.Popen([sys.executable, '-m', 'tests.forks'], cwd=ROOT, env=environment, **pipes)
        self._numbers = itertools.count()
        return self

    def __exit__(self, *exception):
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def begin(self, *arguments, module='main', cwd=ROOT, drawn=True, **environment):
        """Returns the Fork of a command, which runs beside this process; if not `drawn`, no figure is."""
        folder = self.folder / f'{next(self._numbers)}'
        folder.mkdir()
        for name in ('out', 'err'):  # it may be killed before it has begun
            (folder / name).touch()
        asked = {'module': module, 'arguments': list(map(str, arguments)), 'cwd': str(cwd), 'environment': environment}
        asked['drawn'] = drawn
        print(json.dumps({**asked, 'folder': str(folder)}), file=self._server.stdin, flush=True)
        return Fork(int(self._server.stdout.readline()), folder)

    def start(self, *arguments, **options):
        """Returns (exit status, stdout, stderr) of a command, which runs to its end."""
        fork = self.begin(*arguments, **options)
        texts = fork.communicate()
        return fork.returncode, *texts

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


def _begin(asked):
    """Forks a process that becomes a command, and one that waits for it to write down how it ended."""
    if os.fork():
        return
    command = os.fork()
    if not command:
        _become(asked)
    print(command, flush=True)
    _, ended = os.waitpid(command, 0)
    written, status = (Path(asked['folder']) / name for name in ('status.tmp', 'status'))
    written.write_text(str(os.waitstatus_to_exitcode(ended)))
    written.rename(status)
    os._exit(0)


def _become(asked):
    """Becomes a command, and ends."""
    for number, name in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(Path(asked['folder']) / name, os.O_WRONLY), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(asked['cwd'])
    os.environ.update(asked['environment'])
    if platforms := asked['environment'].get('JAX_PLATFORMS'):
        jax.config.update('jax_platforms', platforms)  # JAX itself has read it
    if not asked['drawn']:
        plots.plot_curves = sheet.draw = lambda *arguments, **options: None
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
    threading._shutdown()
    atexit._run_exitfuncs()  # others of its run wait for some; what Python does next would take half a second
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def main():
    """Answers starts until there are no more."""
    from artifacts_jax import pipeline  # noqa: F401 (what takes long)

    warnings.filterwarnings('ignore', message='os.fork', category=RuntimeWarning)  # no device has been touched yet
    warnings.filterwarnings('ignore', message='.*fork', category=DeprecationWarning)
    gc.freeze()  # what has been imported is not looked through again
    for line in sys.stdin:
        _begin(json.loads(line))
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == '__main__':
    main()
