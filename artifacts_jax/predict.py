"""Shows what a detector finds in a folder of images.

python -m artifacts_jax.predict --images=photographs --out=found \\
    --export=runs/voc07_detection/voc_detection/single_scale_frozen1/export

OUT gets predictions.csv, and each image with what is found in it drawn, as a PNG file of its name. Proposals are found
by selective search, which keeps them in OUT/proposals, or read from a file that --proposals names.
"""

import csv
import io
import sys
from pathlib import Path

from absl import flags

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.devices import host

TABLE = 'predictions.csv'


def write(export: str, images: Path, out: Path, *, least: float = 0.5, proposals: str = '') -> int:
    """Writes what a detector finds, and returns in how many images it has looked.

    Args:
      export: the detector's.
      images: a folder; that of OUT is not looked into.
      out: gets the files.
      least: the score of what is written and drawn.
      proposals: a file of the boxes to look at, whose names are those of the images below their folder; by default
        they are searched.

    Raises:
      ForeseenError: one of its kinds, with a message for the user.
    """
    from artifacts_jax.drawing import boxes as drawn
    from artifacts_jax.transfer.voc.detection import loading, pictures
    from artifacts_jax.transfer.voc.detection import proposals as searched

    if images.resolve() in (out.resolve(), *out.resolve().parents):
        raise configuration.ConfigError(f'--out={out} lies in --images={images}: name a folder beside it')
    find, names = loading.load(export)
    records = _records(images)
    source = proposals or searched.SEARCH
    boxes = searched.load(records, source, place=str(images), folder=out / 'proposals')
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator='\n')
    table.writerow(['image', 'label', 'score', 'x1', 'y1', 'x2', 'y2'])
    found = find(records, boxes)
    for row, each in found.items():
        name = records[row].name
        shown = pictures.photograph(records[row].image(), each, names, least)
        drawn.draw(out / f'{name}.png', [shown], classes=names)
        for label, score, box in zip(shown.names, shown.scores, shown.boxes.tolist()):
            table.writerow([name, label, f'{score:.4f}', *(f'{x:.1f}' for x in box)])
    host.write_whole(out / TABLE, lines.getvalue())
    print(f'{len(found):,} images are drawn in {out}; scores and boxes are in {out / TABLE}')
    return len(found)


def _records(folder):
    """Returns the images of a folder, but those that cannot be read, which are said."""
    from artifacts_jax.data import decoding, folders
    from artifacts_jax.data.errors import DataError
    from artifacts_jax.transfer.voc import annotations, records

    found, nothing = [], annotations.objects([])
    for name in folders.paths(folder):
        try:
            size = decoding.shape(folder / name)
        except decoding.UnusableError as error:
            print(f'warning: left out {name} ({error})', file=sys.stderr)
            continue
        found.append(records.Record(name, size, nothing, annotations.presence(nothing), folder / name))
    if not found:
        raise DataError(f'no image in {folder} can be read')
    return found


def declare_flags() -> None:
    """Declares the flags; not on import, where they would meet those of other commands of the same name."""
    flags.DEFINE_string('export', None, 'the export of a detector')
    flags.DEFINE_string('images', None, 'folder of images, also in folders below it')
    flags.DEFINE_string('out', None, 'folder for the drawings and the table')
    flags.DEFINE_float('least', 0.5, 'score of what is written and drawn', lower_bound=0, upper_bound=1)
    flags.DEFINE_string('proposals', '', 'boxes to look at, a .npz; by default selective search finds them')


def main():
    """Shows what is found in the images of the command line."""
    given = flags.FLAGS
    images, out = host.folder(given.images, 'images'), host.folder(given.out, 'out')
    if not images.is_dir():
        raise configuration.ConfigError(f'--images={given.images} is no folder')
    write(given.export, images, out, least=given.least, proposals=given.proposals)


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['export', 'images', 'out'])
