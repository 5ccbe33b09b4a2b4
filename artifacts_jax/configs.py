"""The configurations, as artifacts_jax.configs.stl10 and so on, wherever the program is installed.

They are the files in configs/, which lies beside this package in the repository, and within it in a wheel.
"""

from pathlib import Path

FOLDER = next(f for f in (Path(__file__).with_suffix(''), Path(__file__).parents[1] / 'configs') if f.is_dir())

__path__ = [str(FOLDER)]  # makes it a package
