import os
import subprocess
import sys

import pytest

from tests import compiling


def test_a_flag_that_this_jaxlib_lacks_is_not_given():
    assert compiling._knows('xla_force_host_platform_device_count')
    assert not compiling._knows('xla_no_such_flag_at_all')


@pytest.mark.slow
def test_golden_numbers_and_fast_forms_hold_as_users_compile_them():
    command = [sys.executable, '-m', 'pytest', '-q', 'tests/golden_test.py', 'tests/models/cpu']
    environment = {**os.environ, 'COMPILE': 'users', 'XLA_FLAGS': '', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '0'}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout
