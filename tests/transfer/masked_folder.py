"""A small folder of images with masks: what is green is of class 1, what is grey of class 2."""

import numpy as np
import PIL.Image

SIZE = (12, 16)


def mask(n):
    """The left part is of class 1, the right one of class 2; the border is of none."""
    found = np.where(np.arange(SIZE[1])[None] < 6 + n % 4, 1, 2).repeat(SIZE[0], axis=0).astype(np.uint8)
    found[0] = 255
    return found


def photograph(n):
    """An image of a mask's classes, with noise."""
    colours = np.array([(0, 0, 0), (30, 160, 40), (130, 130, 130)])
    noise = np.random.default_rng(n).integers(0, 40, (*SIZE, 3))
    return (colours[np.where(mask(n) == 255, 0, mask(n))] + noise).astype(np.uint8)


def folder(path):
    """Makes six images for training and two for validation, in folders below the splits; returns the path."""
    for split, count in (('training', 3), ('validation', 1)):
        for place in ('park', 'town'):
            for kind, picture in (('images', photograph), ('masks', mask)):
                (path / kind / split / place).mkdir(parents=True)
                for n in range(count):
                    PIL.Image.fromarray(picture(n)).save(path / kind / split / place / f'{n}.png')
    return path
