"""A VOCdevkit of photographs that scikit-image and scikit-learn ship, with outlines of their objects, drawn by hand.

The VOC tasks are overfitted to it: real images, whose boxes and masks come with the tests.
"""

import numpy as np
import PIL.Image
import PIL.ImageDraw

from artifacts_jax.data import photographs
from artifacts_jax.data.voc.annotations import NAMES
from tests.transfer.voc import trees

# {photograph: (class, x and y of the corners, in % of its width and height), ...}; what comes later lies in front.
OUTLINES = {
    'astronaut': (
        ('aeroplane', '75 8 77 7 80 0 84 4 87 8 89 14 88 34 89 44 87 52 72 53 75 44 69 43 73 35'),
        (
            'person',
            '30 12 36 6 44 3 53 6 58 14 57 22 53 26 51 33 58 40 60 46 67 52 71 68 60 72 55 90 54 100 6 100 4 84 6 60'
            ' 12 48 22 40 25 32 34 29 34 24 30 18',
        ),
    ),
    'camera': (
        (
            'person',
            '0 49 10 34 14 27 25 24 31 20 35 14 41 12 48 16 53 23 51 27 48 33 50 37 55 40 58 33 64 34 64 40 59 44'
            ' 59 54 48 61 40 58 29 73 29 100 0 100',
        ),
    ),
    'chelsea': (
        ('cat', '8 0 7 30 9 52 4 62 6 78 2 90 0 100 64 100 72 88 70 75 78 60 80 45 79 28 84 8 88 0'),
    ),
    'flower': (
        (
            'pottedplant',
            '49 20 58 24 65 32 68 45 69 52 66 66 60 76 52 84 43 82 33 76 28 66 26 52 28 40 30 32 37 25',
        ),
    ),
    'motorcycle_left': (
        ('chair', '6 22 38 21 38 38 32 33 24 30 19 30 19 40 12 40 14 48 7 61'),
        (
            'motorbike',
            '12 40 19 40 18 33 20 30 24 32 32 33 38 38 47 38 50 33 45 27 50 25 58 27 64 22 68 17 72 22 77 23 79 26'
            ' 75 36 79 52 87 62 92 76 89 88 84 90 76 86 70 75 69 62 64 55 64 68 57 76 45 80 44 87 44 75 37 74 30 79'
            ' 21 77 16 68 17 56 20 48 14 50',
        ),
    ),
}  # fmt: skip
CLASSES = sorted({name for outlines in OUTLINES.values() for name, _ in outlines})


def devkit(folder, *, side, names=tuple(OUTLINES)):
    """Writes a VOC2012 tree of photographs, resized to `side` pixels on the longer side; returns its path."""
    year = folder / 'VOC2012'
    for path, photograph in zip(photographs.paths(), photographs.photographs(), strict=True):
        if path.stem in names:
            scale = side / max(photograph.size)
            small = photograph.resize([round(scale * x) for x in photograph.size], PIL.Image.Resampling.BOX)
            _add(year, path.stem, small, OUTLINES[path.stem])
    for lists in ('Main', 'Segmentation'):
        trees.listed(year, 'trainval', *names, lists=lists)
    return year


def _add(year, name, photograph, outlines):
    mask = PIL.Image.new('L', photograph.size)
    draw, objects = PIL.ImageDraw.Draw(mask), []
    for label, text in outlines:
        corners = np.fromstring(text, sep=' ').reshape(-1, 2) / 100 * (np.array(photograph.size) - 1)
        draw.polygon([*corners.flat], fill=1 + NAMES.index(label), outline=255)  # void around objects, as VOC has it
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)]).round().astype(int) + 1
        objects.append(trees.an_object(label, box.tolist()))
    xml = trees.annotation(*objects, size=photograph.size[::-1])
    trees.add(year, name, xml, size=photograph.size[::-1], mask=np.asarray(mask))
    photograph.save(year / 'JPEGImages' / f'{name}.png')
