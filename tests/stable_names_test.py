"""The names that programs may rely on: those of the page, there, and imported when they are needed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import artifacts_jax
from artifacts_jax import pipeline

ROOT = Path(__file__).parents[1]


def test_stable_names_are_those_of_the_page():
    (row,) = [
        x for x in (ROOT / 'docs' / 'promises.md').read_text().splitlines() if x.startswith('| `artifacts_jax.run`')
    ]
    names = re.findall(r'`(?:artifacts_jax\.)?(\w+)`', row)
    assert sorted(names) == sorted(artifacts_jax.__all__)


def test_every_name_is_there_and_listed():
    assert set(artifacts_jax.__all__) <= set(dir(artifacts_jax))
    assert artifacts_jax.run is pipeline.run
    for name in artifacts_jax.__all__:
        assert getattr(artifacts_jax, name)
    with pytest.raises(AttributeError, match="module 'artifacts_jax' has no attribute 'load_feature'"):
        _ = artifacts_jax.load_feature


def test_listing_them_imports_no_jax():
    code = 'import sys, artifacts_jax; dir(artifacts_jax), artifacts_jax.__version__; sys.exit("jax" in sys.modules)'
    subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
