"""The paper's tables, for comparison with our results: every number is in %.

Source of all rows: the tables of Jenni and Favaro, CVPR 2018 (arXiv 1806.05024), which take the numbers of other
methods from their papers. Numbers that the paper does not give, or that were not available to us, are omitted.
"""

from typing import NamedTuple

from artifacts_jax.training import results

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')


class Table(NamedTuple):
    """A published table: its title, its columns, and its rows {method: numbers}; None for a missing number."""

    title: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float | None, ...]]


class Setting(NamedTuple):
    """The setting of an experiment: number of training images, of test images, and of updates."""

    train: int
    test: int
    steps: int


SUPERVISED, RANDOM, OURS = 'ImageNet labels (Krizhevsky)', 'random', 'spot artifacts (the paper)'

IMAGENET = Table(
    'ImageNet, linear classifiers on frozen layers: top-1 accuracy, %',
    LAYERS,
    {
        SUPERVISED: (19.3, 36.3, 44.2, 48.3, 50.5),
        RANDOM: (11.6, 17.1, 16.9, 16.3, 14.1),
        'Doersch': (16.2, 23.3, 30.2, 31.7, 29.6),
        'Donahue (BiGAN)': (17.7, 24.5, 31.0, 29.9, 28.0),
        'Kraehenbuehl': (17.5, 23.0, 24.5, 23.2, 20.6),
        'Noroozi and Favaro (jigsaw)': (18.2, 28.8, 34.0, 33.9, 27.1),
        'Noroozi (count)': (18.0, 30.6, 34.3, 32.5, 25.7),
        'Pathak (inpainting)': (14.1, 20.7, 21.0, 19.8, 15.5),
        'Zhang (colorization)': (13.1, 24.8, 31.0, 32.6, 31.8),
        'Zhang (split-brain)': (17.7, 29.3, 35.4, 35.2, 32.8),
        OURS: (19.5, 33.3, 37.9, 38.9, 34.9),
    },
)

VOC = Table(
    'PASCAL VOC: classification and detection (2007) mAP, segmentation (2012) mean IoU, %',
    ('classification', 'detection', 'segmentation'),
    {
        SUPERVISED: (79.9, 56.8, 48.0),
        RANDOM: (53.3, 43.4, 19.8),
        'Agrawal': (54.2, 43.9, None),
        'Bojanowski': (65.3, 49.4, None),
        'Doersch': (65.3, 51.1, None),
        'Donahue (BiGAN)': (60.1, 46.9, 35.2),
        'Jayaraman and Grauman': (None, 41.7, None),
        'Kraehenbuehl': (56.6, 45.6, 32.6),
        'Larsson': (65.9, None, 38.0),
        'Noroozi and Favaro (jigsaw)': (67.6, 53.2, 37.6),
        'Noroozi (count)': (67.7, 51.4, 36.6),
        'Owens': (61.3, 44.0, None),
        'Pathak (inpainting)': (56.5, 44.5, 29.7),
        'Pathak (move)': (61.0, 52.2, None),
        'Wang and Gupta': (63.1, 47.4, None),
        'Zhang (colorization)': (65.9, 46.9, 35.6),
        'Zhang (split-brain)': (67.1, 46.7, 36.0),
        OURS: (69.8, 52.5, 38.1),
    },
)


IMAGENET_IMAGES = (1_281_167, 50_000)  # training, test
VOC07_IMAGES = (5_011, 4_952)
VOC12_IMAGES = (8_498, 736)  # train of SBD, seg11valid


def format_setting(name: str, data: str, ours: Setting, theirs: Setting) -> str:
    """Returns a line with the setting of our row, and the published setting if it differs.

    Args:
      name: the name of our row.
      data: the name of the data set.
      ours: the setting of our row.
      theirs: the setting of the published rows.
    """
    text = f'{name}: {data}, {ours.train:,} training and {ours.test:,} test images, {ours.steps:,} updates; '
    if ours == theirs:
        return text + 'as published\n'
    return text + f'published: {theirs.train:,} and {theirs.test:,} images, {theirs.steps:,} updates\n'


def format_voc_tables(
    title: str,
    column: int,
    rows: dict[str, dict[str, str]],
    classes: dict[str, dict[str, float | None]],
    settings: str = '',
) -> str:
    """Returns our results on VOC as text tables: first a comparison with published rows, then the values by class.

    Args:
      title: the title: what is measured, on how many images.
      column: index of the column of VOC that has the published numbers.
      rows: our rows, {name: {heading: cell}}; the first heading is compared with the published numbers.
      classes: the values by class, {heading: {class: value}}.
      settings: lines of text below the first table.
    """
    headings = list(next(iter(rows.values())))
    blank = [''] * (len(headings) - 1)
    published_rows = [[name, numbers[column], *blank] for name, *numbers in add_published_rows(VOC, {})]
    our_rows = [[name, *cells.values()] for name, cells in rows.items()]
    names = next(iter(classes.values()))
    by_class = [[name, *(results.format_number(values[name]) for values in classes.values())] for name in names]
    return (
        f'{title}\n\n{results.format_table(["", *headings], published_rows + our_rows)}{settings}\n'
        + results.format_table(['class', *classes], by_class)
    )


def add_published_rows(table: Table, ours: dict[str, tuple[float | None, ...]]) -> list[list[str]]:
    """Returns text rows: the published supervised, random and paper rows, then `ours`, {name: numbers}."""
    return format_rows({name: table.rows[name] for name in (SUPERVISED, RANDOM, OURS)} | ours)


def format_rows(rows: dict[str, tuple[float | None, ...]]) -> list[list[str]]:
    """Returns text rows of {name: numbers}; None becomes an empty cell."""
    return [[name, *('' if x is None else f'{x:.1f}' for x in numbers)] for name, numbers in rows.items()]
