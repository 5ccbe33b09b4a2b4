"""Small VOC and SBD folders for tests; the colour of a pixel gives its class."""

import numpy as np
import PIL.Image
import scipy.io

from tests.transfer.voc import trees

SIZES = [(20, 24), (24, 18), (20, 24), (17, 24), (22, 20), (20, 24)]
COLOURS = {0: (20, 200, 40), 8: (220, 40, 30), 12: (40, 60, 230)}  # of background, cat and dog


def picture(n, size):
    """Returns (pixels, mask) of an image with a cat or a dog, which has a void border."""
    random, label = np.random.default_rng(n), (8, 12)[n % 2]
    top, left = random.integers(1, 6, 2)
    mask = np.zeros(size, np.uint8)
    mask[top : top + 11, left : left + 11] = 255
    mask[top + 1 : top + 10, left + 1 : left + 10] = label
    pixels = np.zeros((*size, 3), np.uint8)
    for value, colour in COLOURS.items():
        pixels[mask == value] = colour
    return pixels, mask


def voc(year, **splits):
    """Adds one image per entry of SIZES; `splits` are {list name: numbers of images}."""
    for n, size in enumerate(SIZES):
        pixels, mask = picture(n, size)
        trees.add(year, name(n), size=size, mask=mask)
        PIL.Image.fromarray(pixels).save(year / 'JPEGImages' / f'{name(n)}.png')
    for split, numbers in splits.items():
        trees.listed(year, split, *map(name, numbers), lists='Segmentation')


def sbd(folder, *numbers, suffix='.mat'):
    """Writes images with these numbers, their masks and the list train in the layout of benchmark_RELEASE."""
    root = folder / 'dataset'
    for subfolder in ('img', 'cls'):
        (root / subfolder).mkdir(parents=True, exist_ok=True)
    for n in numbers:
        pixels, mask = picture(n, SIZES[n % len(SIZES)])
        PIL.Image.fromarray(pixels).save(root / 'img' / f'{name(n)}.png')
        mask_of_sbd(root / 'cls' / f'{name(n)}{suffix}', np.where(mask == 255, 0, mask).astype(np.uint8))
    (root / 'train.txt').write_text('\n'.join(map(name, numbers)))


def mask_of_sbd(path, mask):
    if path.suffix == '.mat':
        content = {'Segmentation': mask, 'CategoriesPresent': np.unique(mask[mask > 0])}
        scipy.io.savemat(path, {'GTcls': content}, do_compression=True)
    else:
        PIL.Image.fromarray(mask).save(path)


def name(n):
    return f'2008_{n:06}'
