import importlib.util
import os
import signal
import subprocess
import sys

import pytest

from artifacts_jax import startup

SHOW = """
import os
from artifacts_jax import startup
startup.restart_with_malloc_settings()
print(os.environ['GLIBC_TUNABLES'])
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='the setting is that of the C library of Linux')
@pytest.mark.parametrize(('given', 'seen'), [(None, startup.MEMORY), ('glibc.malloc.check=0', 'glibc.malloc.check=0')])
def test_program_starts_again_to_keep_its_memory_unless_the_user_decides(given, seen):
    environment = {name: value for name, value in os.environ.items() if name != 'GLIBC_TUNABLES'}
    if given:
        environment['GLIBC_TUNABLES'] = given
    run = subprocess.run([sys.executable, '-c', SHOW], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.split() == [seen]


KEEP = """
import resource
from artifacts_jax import startup
startup.restart_with_malloc_settings()
from artifacts_jax.devices import host
host.set_up_jax()
import jax
import jax.numpy as jnp
x = jnp.ones((1_500_000, 16))
step = jax.jit(lambda x: (jnp.sin(x @ x[:16]) @ x[16:32]).max())  # 96 MB between its two products
def faults(steps):
    for _ in range(steps):
        step(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(-faults(3) + faults(5))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='the setting is that of the C library of Linux')
def test_steps_take_no_fresh_memory_and_their_programs_are_kept(monkeypatch, tmp_path):
    for name in ('GLIBC_TUNABLES', 'JAX_COMPILATION_CACHE_DIR'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    run = subprocess.run([sys.executable, '-c', KEEP], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 500  # else 450 page faults a step, in pages of 2 MB and some small ones
    assert list((tmp_path / 'artifacts_jax').glob('jit__lambda*'))  # though compiled in less than JAX's second


@pytest.mark.parametrize(
    ('plain', 'done'),
    [('', ['SIGINT', 'restart', 'SIGINT', 'configs']), ('0', ['SIGINT', 'restart', 'SIGINT', 'configs']), ('1', [])],
)
def test_one_variable_leaves_all_of_it_out(monkeypatch, plain, done):
    seen = []
    monkeypatch.setattr(os, 'environ', {startup.PLAIN: plain})
    monkeypatch.setattr(sys, 'platform', 'linux')
    monkeypatch.setattr(sys, 'orig_argv', [sys.executable, '-m', 'artifacts_jax.main', '--help'])
    monkeypatch.setattr(os, 'execv', lambda *command: seen.append('restart'))
    monkeypatch.setattr(signal, 'getsignal', lambda number: signal.default_int_handler)
    monkeypatch.setattr(signal, 'signal', lambda number, handler: seen.append(number.name))
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    monkeypatch.setitem(sys.modules, 'configs', None)
    startup.handle_ctrl_c_during_imports()
    startup.set_up_process()
    assert [*seen, *['configs'] * (sys.modules['configs'] is not None)] == done
    assert (startup.RESTARTED in os.environ) == bool(done)


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ('-m artifacts_jax.main --config=demo', True),
        ('-m artifacts_jax train --config=demo', True),
        ('-X importtime -W error -m artifacts_jax.main', True),
        ('/venv/bin/artifacts-jax train', True),
        ('-X importtime bin/artifacts-jax train', True),
        ('-m artifacts_jax_other.main', False),
        ('-m pytest -m artifacts_jax.main', False),
        ('script.py -m artifacts_jax.main', False),
        ('script.py artifacts-jax', False),
        ('-c pass', False),
        ('', False),
    ],
)
def test_commands_are_told_from_scripts(monkeypatch, arguments, expected):
    monkeypatch.setattr(sys, 'orig_argv', ['python', *arguments.split()])
    assert startup.is_command() == expected


def test_a_file_may_import_configs_from_anywhere(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    for name in ('configs', 'configs.default'):
        monkeypatch.setitem(sys.modules, name, None)  # at the test's end it is as it was
        del sys.modules[name]
    startup._provide_configs()
    from configs import default

    assert default.get_config().seed == 0
