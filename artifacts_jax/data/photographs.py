"""Crops of the photographs that ship inside scikit-image and scikit-learn: real images, without a download.

A demonstration, not a benchmark: the label is the photograph that a crop comes from.
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
LARGEST = 160  # largest side of a crop before it is resized
TEST_PART = 0.3  # part of a photograph's width, at its right, that test crops come from
CROPS = {'train': 128, 'test': 32}  # of each photograph

SKIMAGE = (
    'astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg'
    ' ihc.png moon.png motorcycle_left.png retina.jpg rocket.jpg'
).split()
SKLEARN = ('china.jpg', 'flower.jpg')


@dataclasses.dataclass(frozen=True, eq=False)
class Crops:
    """A split: 96-pixel crops of the photographs, in an order that is as good as random."""

    split: str
    order: Int[np.ndarray, ' N']

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the photographs."""
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
    """Returns the splits; train and test crops come from disjoint parts of each photograph."""
    order = np.random.default_rng(0).permutation
    return {split: Crops(split, order(len(paths()) * crops)) for split, crops in CROPS.items()}


@functools.cache
def photographs() -> list:
    """Returns the photographs, images of Pillow in RGB."""
    opened = []
    for path in paths():
        with PIL.Image.open(path) as file:
            opened.append(file.convert('RGB'))
    return opened


@functools.cache
def paths() -> list[Path]:
    """Returns the photographs' files, inside the installed packages."""

    def folder(package):  # without importing it
        return Path(importlib.util.find_spec(package).origin).parent

    folders = {folder('skimage') / 'data': SKIMAGE, folder('sklearn') / 'datasets' / 'images': SKLEARN}
    return [folder / name for folder, names in folders.items() for name in names]


@functools.cache
def sample_boxes(size: tuple[int, int], split: str, name: str) -> Int32[np.ndarray, 'crops 4']:
    """Draws the crops of one photograph: squares of SIZE to LARGEST pixels inside the split's part of it.

    Args:
      size: the photograph's (width, height), pixels.
      split: 'train' (its left part) or 'test' (its right part).
      name: the photograph's name; with the split it decides the draw.

    Returns:
      Top, left, bottom and right of each.
    """
    random = np.random.default_rng([*name.encode(), *split.encode()])
    width, height = size
    border = width - int(width * TEST_PART)
    first, last = (0, border) if split == 'train' else (border, width)
    sides = random.integers(SIZE, min(LARGEST, height, last - first) + 1, CROPS[split])
    top, left = random.integers(0, height - sides + 1), random.integers(first, last - sides + 1)
    return np.stack([top, left, top + sides, left + sides], axis=1).astype(np.int32)
