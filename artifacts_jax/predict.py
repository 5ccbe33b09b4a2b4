"""Shows what a detector or a segmenter finds in a folder of images.

python -m artifacts_jax.predict --images=photographs --out=found \\
    --export=runs/voc07_detection/voc_detection/single_scale_frozen1/export
python -m artifacts_jax.predict --images=photographs --out=found \\
    --export=runs/voc12_segmentation/voc_segmentation/fcn/export

OUT gets predictions.csv, and each image with what is found in it drawn, as a PNG file of its name. Of a detector the
table has a row for each box. Its proposals are found by selective search, which keeps them in OUT/proposals, or read
from a file that --proposals names. Of a segmenter it has a row for each class in an image, with the part of the image
that is of it; OUT/labels has the classes of the pixels, as VOC's masks have them.
"""

import csv
import io
import sys
from pathlib import Path

from absl import flags

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.devices import host
from artifacts_jax.files import write_atomically

TABLE = 'predictions.csv'


def predict_folder(export: str, images: Path, out: Path, *, least: float = 0.5, proposals: str = '') -> int:
    """Writes what a network finds, and returns in how many images it has looked.

    Args:
      export: of a detector or a segmenter.
      images: a folder; OUT must not lie in it.
      out: gets the files.
      least: of a detector, the score of what is written and drawn.
      proposals: of a detector, a file of the boxes to look at, whose names are those of the images below their folder;
        by default they are searched.

    Raises:
      UserError: one of its kinds, with a message for the user.
    """
    from artifacts_jax.data.errors import DataError
    from artifacts_jax.exchange import exports

    if images.resolve() in (out.resolve(), *out.resolve().parents):
        raise configuration.ConfigError(f'--out={out} lies in --images={images}: name a folder beside it')
    head = exports.read_description(export)['head'] or {}
    if head.get('protocol') not in ('detection', 'segmentation'):
        raise exports.ExportError(
            f'{export} has neither a detector nor a segmenter: name one of voc_detection/ or voc_segmentation/'
        )
    if head['protocol'] == 'detection':
        rows, count = _detected(export, images, out, least, proposals)
    elif proposals:
        raise configuration.ConfigError(f'--proposals={proposals}: {export} is a segmenter, which looks at no boxes')
    else:
        rows, count = _segmented(export, images, out)
    if not count:
        raise DataError(f'no image in {images} can be read (see the warnings)')
    lines = io.StringIO()
    csv.writer(lines, lineterminator='\n').writerows(rows)
    write_atomically(out / TABLE, lines.getvalue())
    print(f'{count:,} images are drawn in {out}; the table is {out / TABLE}')
    return count


def _detected(export, folder, out, least, proposals):
    """Draws the boxes of images; returns (the rows of the table, how many images)."""
    from artifacts_jax.drawing import boxes as drawn
    from artifacts_jax.transfer.voc.detection import detections, detector
    from artifacts_jax.transfer.voc.detection import proposals as searched

    find, names = detector.load_detect_fn(export)
    images = _records(folder)
    boxes = searched.load(images, proposals or searched.SELECTIVE_SEARCH, place=str(folder), folder=out / 'proposals')
    rows, found = [('image', 'label', 'score', 'x1', 'y1', 'x2', 'y2')], find(images, boxes)
    for row, each in found.items():
        name = images[row].name
        shown = detections.make_photograph(images[row].read_image(), each, names, least)
        drawn.draw(out / f'{name}.png', [shown], classes=names)
        for label, score, box in zip(shown.names, shown.scores, shown.boxes.tolist()):
            rows.append((name, label, f'{score:.4f}', *(f'{x:.1f}' for x in box)))
    return rows, len(found)


def _segmented(export, folder, out):
    """Paints the pixels of images; returns (the rows of the table, how many images)."""
    import numpy as np

    from artifacts_jax.drawing import label_maps
    from artifacts_jax.transfer.voc.segmentation import segmenter

    find, names = segmenter.load_segment_fn(export)
    images = _records(folder)
    if within := [record.name for record in images if record.name.startswith('labels/')]:
        raise configuration.ConfigError(f'{folder / within[0]}: labels/ is for the maps in --out; rename that folder')
    rows, count = [('image', 'label', 'part')], 0
    for row, labels in find(images):
        name, count = images[row].name, count + 1
        picture = label_maps.Row(images[row].read_image(), (labels,))
        label_maps.draw(out / f'{name}.png', [picture], ('photograph', 'prediction'), dict(enumerate(names)))
        label_maps.write(out / 'labels' / f'{name}.png', labels)
        parts = np.bincount(labels.reshape(-1), minlength=len(names)) / labels.size
        rows.extend((name, names[n], f'{parts[n]:.4f}') for n in np.argsort(-parts, kind='stable') if parts[n])
    return rows, count


def _records(folder):
    """Returns the images of a folder, but those that cannot be read, which are said."""
    from artifacts_jax.data import decoding, folders
    from artifacts_jax.data.errors import DataError
    from artifacts_jax.data.voc.records import Record

    found = []
    for name in folders.list_images(folder):
        try:
            size = decoding.read_size(folder / name)
        except decoding.UnusableError as error:
            print(f'warning: left out {name} ({error})', file=sys.stderr)
            continue
        found.append(Record(name, folder / name, size))
    if not found:
        raise DataError(f'no image in {folder} can be read')
    return found


def declare_flags() -> None:
    """Declares the flags; not on import, where they would meet those of other commands of the same name."""
    flags.DEFINE_string('export', None, 'the export of a detector or a segmenter')
    flags.DEFINE_string('images', None, 'folder of images, also in folders below it')
    flags.DEFINE_string('out', None, 'folder for the drawings and the table')
    flags.DEFINE_float(
        'least', 0.5, 'of a detector, the score of what is written and drawn', lower_bound=0, upper_bound=1
    )
    flags.DEFINE_string(
        'proposals', '', 'of a detector, boxes to look at, a .npz; by default selective search finds them'
    )


def main():
    """Shows what is found in the images of the command line."""
    given = flags.FLAGS
    images, out = host.folder(given.images, 'images'), host.folder(given.out, 'out')
    if out.is_file():
        raise configuration.ConfigError(f'--out={given.out} is a file, expected a folder')
    if not images.is_dir():
        raise configuration.ConfigError(f'--images={given.images} is no folder')
    predict_folder(given.export, images, out, least=given.least, proposals=given.proposals)


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['export', 'images', 'out'])
