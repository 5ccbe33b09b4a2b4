"""A built-in data set: crops of 16 photographs that are shipped inside scikit-image and scikit-learn.

It needs no download. The label of a crop is its photograph. It is a demonstration, not a benchmark.
"""

import dataclasses
import functools
import importlib.util
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Int, Int32

from artifacts_jax.data.sources import Example

SIZE = 96  # side of an example, pixels
MAX_SIZE = 160  # largest side of a crop before it is resized, pixels
TEST_FRACTION = 0.3  # of a photograph's width: test crops come from this region at the right
CROPS = {'train': 128, 'test': 32}  # number for each photograph

SKIMAGE = (
    'astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg'
    ' ihc.png moon.png motorcycle_left.png retina.jpg rocket.jpg'
).split()
SKLEARN = ('china.jpg', 'flower.jpg')


@dataclasses.dataclass(frozen=True, eq=False)
class Crops:
    """A split: 96-pixel crops of the photographs, in pseudo-random order."""

    split: str
    order: Int[np.ndarray, ' N']

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the photographs, which are the classes."""
        return tuple(path.stem for path in paths())

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        label, n = divmod(int(self.order[index]), CROPS[self.split])
        photograph = photographs()[label]
        name = self.label_names[label]
        top, left, bottom, right = (int(x) for x in sample_boxes(photograph.size, self.split, name)[n])
        crop = photograph.resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        return Example(np.asarray(crop), label, f'{name}_{n}')


def open_photographs() -> dict[str, Crops]:
    """Returns {split: crops}; train and test crops come from disjoint regions of each photograph."""
    order = np.random.default_rng(0).permutation
    return {split: Crops(split, order(len(paths()) * crops)) for split, crops in CROPS.items()}


@functools.cache
def photographs() -> list:
    """Returns the photographs as Pillow images, RGB."""
    images = []
    for path in paths():
        with PIL.Image.open(path) as file:
            images.append(file.convert('RGB'))
    return images


@functools.cache
def paths() -> list[Path]:
    """Returns the paths of the photographs inside the installed packages."""

    def folder(package):  # without importing the package, which is slow
        return Path(importlib.util.find_spec(package).origin).parent

    folders = {folder('skimage') / 'data': SKIMAGE, folder('sklearn') / 'datasets' / 'images': SKLEARN}
    return [folder / name for folder, names in folders.items() for name in names]


@functools.cache
def sample_boxes(size: tuple[int, int], split: str, name: str) -> Int32[np.ndarray, 'crops 4']:
    """Samples the crops of one photograph: squares of SIZE to MAX_SIZE pixels inside the region of the split.

    Args:
      size: the (width, height) of the photograph, pixels.
      split: 'train' (the left region) or 'test' (the right region).
      name: of the photograph; name and split are the random seed.

    Returns:
      Top, left, bottom and right of each crop, pixels.
    """
    random = np.random.default_rng([*name.encode(), *split.encode()])
    width, height = size
    border = width - int(width * TEST_FRACTION)
    first, last = (0, border) if split == 'train' else (border, width)
    sides = random.integers(SIZE, min(MAX_SIZE, height, last - first) + 1, CROPS[split])
    top, left = random.integers(0, height - sides + 1), random.integers(first, last - sides + 1)
    return np.stack([top, left, top + sides, left + sides], axis=1).astype(np.int32)
