"""Makes the files in configs/ importable as artifacts_jax.configs.stl10 and so on.

In the repository the folder configs/ is next to this package; in a wheel it is inside this package.
"""

from pathlib import Path

FOLDER = next(f for f in (Path(__file__).with_suffix(''), Path(__file__).parents[1] / 'configs') if f.is_dir())

__path__ = [str(FOLDER)]  # makes it a package
