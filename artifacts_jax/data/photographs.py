"""A tfds data set of crops of the photographs that ship inside scikit-image and scikit-learn: real images, offline.

A demonstration, not a benchmark: the label is the photograph that a crop comes from.
"""

from pathlib import Path

import numpy as np
import PIL.Image
import skimage
import sklearn.datasets
import tensorflow_datasets as tfds
from jaxtyping import Int32

SIZE = 96  # side of an example, pixels
LARGEST = 160  # largest side of a crop before it is resized
TEST_PART = 0.3  # part of a photograph's width, at its right, that test crops come from
CROPS = {'train': 128, 'test': 32}  # of each photograph

SKIMAGE = (
    'astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg'
    ' ihc.png moon.png motorcycle_left.png retina.jpg rocket.jpg'
).split()
SKLEARN = ('china.jpg', 'flower.jpg')


class Photographs(tfds.core.GeneratorBasedBuilder):
    """96-pixel crops of 16 photographs; train and test crops come from disjoint parts of each."""

    VERSION = tfds.core.Version('1.0.0')
    RELEASE_NOTES = {'1.0.0': 'First version.'}  # noqa: RUF012

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                'image': tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format='jpeg'),
                'label': tfds.features.ClassLabel(names=[path.stem for path in paths()]),
                # Top, left, bottom and right of the crop in the photograph, pixels.
                'box': tfds.features.Tensor(shape=(4,), dtype=np.int32),
            }
        )
        return self.dataset_info_from_configs(features=features, supervised_keys=('image', 'label'))

    def _split_generators(self, dl_manager):
        del dl_manager  # nothing is downloaded
        return {split: self._generate_examples(split) for split in CROPS}

    def _generate_examples(self, split):
        for path in paths():
            with PIL.Image.open(path) as file:
                photograph = file.convert('RGB')
            for n, box in enumerate(boxes(photograph.size, split, path.stem)):
                top, left, bottom, right = (int(x) for x in box)
                crop = photograph.resize((SIZE, SIZE), PIL.Image.Resampling.BILINEAR, box=(left, top, right, bottom))
                yield f'{path.stem}_{n}', {'image': np.asarray(crop), 'label': path.stem, 'box': box}


def paths() -> list[Path]:
    """Returns the photographs' files, inside the installed packages."""
    folders = {
        Path(skimage.__file__).parent / 'data': SKIMAGE,
        Path(sklearn.datasets.__file__).parent / 'images': SKLEARN,
    }
    return [folder / name for folder, names in folders.items() for name in names]


def boxes(size: tuple[int, int], split: str, name: str) -> Int32[np.ndarray, 'crops 4']:
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
