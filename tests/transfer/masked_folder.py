"""A small folder of images with masks: green pixels have class 1, grey pixels class 2."""

import numpy as np
import PIL.Image

SIZE = (12, 16)


def mask(n):
    """Returns a mask: class 1 on the left, class 2 on the right, no class in the top row."""
    classes = np.where(np.arange(SIZE[1])[None] < 6 + n % 4, 1, 2).repeat(SIZE[0], axis=0).astype(np.uint8)
    classes[0] = 255
    return classes


def photograph(n):
    """Returns an image with the colours of the classes of a mask, with noise."""
    colours = np.array([(0, 0, 0), (30, 160, 40), (130, 130, 130)])
    noise = np.random.default_rng(n).integers(0, 40, (*SIZE, 3))
    return (colours[np.where(mask(n) == 255, 0, mask(n))] + noise).astype(np.uint8)


def folder(path):
    """Writes six training and two validation images, in subfolders of the splits; returns the path."""
    for split, count in (('training', 3), ('validation', 1)):
        for subfolder in ('park', 'town'):
            for kind, picture in (('images', photograph), ('masks', mask)):
                (path / kind / split / subfolder).mkdir(parents=True)
                for n in range(count):
                    PIL.Image.fromarray(picture(n)).save(path / kind / split / subfolder / f'{n}.png')
    return path
