"""Applies a detector or a segmenter to a folder of images, and writes pictures and a table of the predictions.

python -m artifacts_jax.predict --images=photographs --out=predictions \\
    --export=runs/voc07_detection/voc_detection/single_scale_frozen1/export
python -m artifacts_jax.predict --images=photographs --out=predictions \\
    --export=runs/voc12_segmentation/voc_segmentation/fcn/export

OUT gets predictions.csv, and for each image a PNG file with the predictions drawn in it.

| network | a row of predictions.csv | more files | region proposals |
|---|---|---|---|
| detector | a box | OUT/proposals: the saved boxes of selective search | selective search, or the file of --proposals |
| segmenter | a class in an image, with its fraction of the pixels | OUT/labels: label maps, as VOC's masks | not used |
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


def predict_folder(export: str, images: Path, out: Path, *, min_score: float = 0.5, proposals: str = '') -> int:
    """Writes the predictions for all images of a folder, and returns the number of images.

    Args:
      export: the export of a detector or a segmenter.
      images: the folder of the images; `out` must not be inside it.
      out: the folder for the results.
      min_score: of a detector, the lowest score of a box that is written and drawn.
      proposals: of a detector, a file of region proposals, whose image names are paths below `images`; '' runs
        selective search.

    Raises:
      UserError: a subclass of it, with a message for the user.
    """
    from artifacts_jax.data.errors import DataError
    from artifacts_jax.exchange import exports

    if images.resolve() in (out.resolve(), *out.resolve().parents):
        raise configuration.ConfigError(f'--out={out} is inside --images={images}: choose a folder outside of it')
    head = exports.read_description(export)['head'] or {}
    if head.get('protocol') not in ('detection', 'segmentation'):
        raise exports.ExportError(
            f'{export} has no detector or segmenter: give an export in voc_detection/ or voc_segmentation/'
        )
    if head['protocol'] == 'detection':
        rows, count = _write_detections(export, images, out, min_score, proposals)
    elif proposals:
        raise configuration.ConfigError(
            f'--proposals={proposals}: {export} is a segmenter, which uses no proposals; remove the flag'
        )
    else:
        rows, count = _write_segmentations(export, images, out)
    if not count:
        raise DataError(f'no image in {images} can be decoded (see the warnings)')
    lines = io.StringIO()
    csv.writer(lines, lineterminator='\n').writerows(rows)
    write_atomically(out / TABLE, lines.getvalue())
    print(f'wrote the predictions for {count:,} images to {out}; the table is {out / TABLE}')
    return count


def _write_detections(export, folder, out, min_score, proposals_file):
    """Draws the detected boxes of each image; returns (rows of the table, number of images)."""
    from artifacts_jax.drawing import boxes as drawing
    from artifacts_jax.transfer.voc.detection import detections, detector, proposals

    detect, names = detector.load_detect_fn(export)
    images = _read_records(folder)
    source = proposals_file or proposals.SELECTIVE_SEARCH
    boxes = proposals.load(images, source, split=str(folder), folder=out / 'proposals')
    rows, detected = [('image', 'label', 'score', 'x1', 'y1', 'x2', 'y2')], detect(images, boxes)
    for row, image_detections in detected.items():
        name = images[row].name
        photograph = detections.make_photograph(images[row].read_image(), image_detections, names, min_score)
        drawing.draw(out / f'{name}.png', [photograph], classes=names)
        for label, score, box in zip(photograph.names, photograph.scores, photograph.boxes.tolist()):
            rows.append((name, label, f'{score:.4f}', *(f'{x:.1f}' for x in box)))
    return rows, len(detected)


def _write_segmentations(export, folder, out):
    """Draws the label map of each image; returns (rows of the table, number of images)."""
    import numpy as np

    from artifacts_jax.drawing import label_maps
    from artifacts_jax.transfer.voc.segmentation import segmenter

    segment, names = segmenter.load_segment_fn(export)
    images = _read_records(folder)
    if conflicts := [record.name for record in images if record.name.startswith('labels/')]:
        raise configuration.ConfigError(
            f'{folder / conflicts[0]}: labels/ is reserved for the label maps in --out; rename this folder'
        )
    rows, count = [('image', 'label', 'part')], 0
    for row, labels in segment(images):
        name, count = images[row].name, count + 1
        picture = label_maps.Row(images[row].read_image(), (labels,))
        label_maps.draw(out / f'{name}.png', [picture], ('photograph', 'prediction'), dict(enumerate(names)))
        label_maps.write(out / 'labels' / f'{name}.png', labels)
        fractions = np.bincount(labels.reshape(-1), minlength=len(names)) / labels.size
        order = np.argsort(-fractions, kind='stable')
        rows.extend((name, names[n], f'{fractions[n]:.4f}') for n in order if fractions[n])
    return rows, count


def _read_records(folder):
    """Returns the records of a folder's images, without pixels; images that cannot be read are skipped with a warning.

    Raises:
      DataError: no image can be read.
    """
    from artifacts_jax.data import decoding, folders
    from artifacts_jax.data.errors import DataError
    from artifacts_jax.data.voc.records import Record

    records = []
    for name in folders.list_images(folder):
        try:
            size = decoding.read_size(folder / name)
        except decoding.UnusableError as error:
            print(f'warning: skipped {name} ({error})', file=sys.stderr)
            continue
        records.append(Record(name, folder / name, size))
    if not records:
        raise DataError(f'no image in {folder} can be read')
    return records


def declare_flags() -> None:
    """Declares the flags of this command.

    This is a function, because flags that are declared on import would clash with the flags of other commands.
    """
    flags.DEFINE_string('export', None, 'the export of a detector or a segmenter')
    flags.DEFINE_string('images', None, 'folder of images; subfolders are included')
    flags.DEFINE_string('out', None, 'folder for the pictures and the table')
    flags.DEFINE_float(
        'min_score', 0.5, 'detector: minimum score of the boxes to write and draw', lower_bound=0, upper_bound=1
    )
    flags.DEFINE_alias('least', 'min_score')  # the name before version 0.2
    flags.DEFINE_string(
        'proposals', '', 'of a detector, a .npz file of region proposals; by default selective search is run'
    )


def main():
    """Writes the predictions for the images that the command line gives."""
    options = flags.FLAGS
    images, out = host.folder(options.images, 'images'), host.folder(options.out, 'out')
    if out.is_file():
        raise configuration.ConfigError(f'--out={options.out} is a file; expected a folder')
    if not images.is_dir():
        raise configuration.ConfigError(f'--images={options.images} is not a directory')
    predict_folder(options.export, images, out, min_score=options.min_score, proposals=options.proposals)


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['export', 'images', 'out'])
