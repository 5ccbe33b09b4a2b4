"""Synthetic VOCdevkit folders with a few small images, for tests."""

import shutil

import numpy as np
import PIL.Image

OBJECT = (
    '<object><name>{name}</name><difficult>{difficult}</difficult><truncated>{truncated}</truncated><bndbox>'
    '<xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>'
)


def an_object(name, box=(1, 1, 4, 4), difficult=0, truncated=0):
    return OBJECT.format(name=name, box=box, difficult=difficult, truncated=truncated)


def annotation(*objects, size=(12, 16)):
    return f'<annotation><size><height>{size[0]}</height><width>{size[1]}</width></size>{"".join(objects)}</annotation>'


def add(year, name, xml=None, *, size=(12, 16), mask=None, suffix='.png'):
    """Adds a noise image, its annotation if not None, and its mask; returns its pixels."""
    for folder in ('Annotations', 'ImageSets/Main', 'ImageSets/Segmentation', 'JPEGImages', 'SegmentationClass'):
        (year / folder).mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(sum(map(ord, name))).integers(0, 256, (*size, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(year / 'JPEGImages' / f'{name}{suffix}')
    if xml is not None:
        (year / 'Annotations' / f'{name}.xml').write_text(xml)
    if mask is not None:
        image = PIL.Image.fromarray(mask)
        if image.mode == 'L':
            image.putpalette(list(range(256)) * 3)
        image.save(year / 'SegmentationClass' / f'{name}.png')
    return noise


def damaged(year, folder, name):
    """Returns a copy of a year folder in which one image file is truncated; the header, with the size, is intact."""
    copy = shutil.copytree(year, folder / year.name)
    whole = copy / 'JPEGImages' / f'{name}.png'
    file = whole.with_suffix('.jpg')
    PIL.Image.open(whole).save(file)
    file.write_bytes(file.read_bytes()[:-40])
    whole.unlink()
    return copy


def listed(year, split, *lines, lists='Main'):
    (year / 'ImageSets' / lists / f'{split}.txt').write_text(''.join(f'{line}\n' for line in lines))
