"""VOC and SBD of small images whose classes can be told by their colours, for tests."""

import numpy as np
import PIL.Image
import scipy.io

from tests.transfer.voc import trees

SIZES = [(20, 24), (24, 18), (20, 24), (17, 24), (22, 20), (20, 24)]
COLOURS = {0: (20, 200, 40), 8: (220, 40, 30), 12: (40, 60, 230)}  # of background, cat and dog


def picture(n, size):
    """(pixels, mask) of an image with a cat or a dog, and void between it and the background."""
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
    """Adds as many images as SIZES has; `splits` are of their numbers."""
    for n, size in enumerate(SIZES):
        pixels, mask = picture(n, size)
        trees.add(year, name(n), size=size, mask=mask)
        PIL.Image.fromarray(pixels).save(year / 'JPEGImages' / f'{name(n)}.png')
    for split, numbers in splits.items():
        trees.listed(year, split, *map(name, numbers), lists='Segmentation')


def sbd(folder, *numbers, suffix='.mat'):
    """Adds images of these numbers to benchmark_RELEASE, and the list train of them."""
    root = folder / 'dataset'
    for place in ('img', 'cls'):
        (root / place).mkdir(parents=True, exist_ok=True)
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
