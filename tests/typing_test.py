"""mypy finds no error in the package and the configurations; pyproject.toml has its settings."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_types():
    run = subprocess.run([sys.executable, '-m', 'mypy'], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_users_get_the_types():
    assert (ROOT / 'artifacts_jax' / 'py.typed').exists()
