"""Makes tests/earlier/REVISION.tar.xz: small work directories, to be read by the versions that follow.

In a checkout of that revision, with its environment:

    python PATH/TO/tests/earlier/make.py OUT.tar.xz

| work directory | stages |
|---|---|
| `pretraining` | autoencoder, artifacts, probe, knn, transfer, layerwise |
| `voc2007` | voc_classification, voc_svm, voc_detection, from the export of `pretraining` |
| `voc2012` | voc_segmentation, segmentation_probe, from the same |

Beside them are their data, and outputs.npz: what the exports computed of one image. All paths are relative.
"""

import contextlib
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image

import artifacts_jax
from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.configs import default
from artifacts_jax.data import photographs
from artifacts_jax.transfer.voc.detection import proposals
from artifacts_jax.transfer.voc.segmentation import batches

SIZE = (20, 24)  # of the images of VOC, pixels
CLASSES = {'cat': 8, 'dog': 12}  # {name: its value in masks}
OBJECT = (
    '<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>15</xmax>'
    '<ymax>16</ymax></bndbox></object>'
)


def configure(stages, data, **updates):
    """Returns a configuration of a network of four to eight channels, that learns for six steps."""
    config = default.get_config()
    config.stages = stages
    config.data.update(size=16, workers=1, **data)
    config.model.update(
        image_size=16, encoder_widths=(4, 8, 8), widths=(4, 8, 8, 8, 8), kernels=(3,) * 5, conv1_stride=1, hidden=8
    )
    config.autoencoder.steps = config.artifacts.steps = 6
    config.optim.epsilon = 1e-2  # rounding errors of another machine should not become whole steps of Adam
    config.probe.update(max_values=64, iterations=20, batch_size=8, penalties=(1e-2, 1e-1), held_out=0.25)
    config.monitor.update(bank=16, queries=8, neighbours=3)
    config.knn.update(neighbours=(3,), max_values=64)
    config.transfer.update(epochs=2, batch_size=8, hidden=8, num_folds=2, fold_size=8, folds='folds.txt')
    config.layerwise.update(preset='vissl', epochs=2, batch_size=8, crop_size=14)
    config.segmentation_probe.update(size=16, batch_size=4, pixels=60, held_out=0.4)
    config.voc_classification.update(steps=6, batch_size=4, crop_size=12, hidden=8, geometry='same')
    config.voc_svm.update(crop_size=16, costs=(0.1, 1.0), parts=('all',), batch_size=12)
    config.voc_detection.update(steps=6, batch_size=4, scales=(20,), longest=40, hidden=8, regions=8, boxes=16)
    config.voc_detection.proposals = 'boxes.npz'
    config.voc_segmentation.update(steps=6, batch_size=4, hidden=8)
    config.update(batch_size=8, log_every=1, eval_every=100, eval_examples=8, figure_every=1000)
    config.update(checkpoint_every=3, keep_checkpoints=2, **updates)
    return configuration.check(config)


def crops(count, size):
    """Returns crops of two photographs in turn, and which of them each is of."""
    random, labels = np.random.default_rng(0), np.arange(count) % 2
    pictures = [photographs.photographs()[n].resize((128, 96)) for n in (0, 4)]
    found = []
    for label in labels:
        left, top = random.integers(0, 128 - size[1]), random.integers(0, 96 - size[0])
        found.append(np.asarray(pictures[label].crop((left, top, left + size[1], top + size[0]))))
    return np.stack(found), labels


def write_arrays(folder):
    """Writes 24 images for training and 8 for tests, and two folds."""
    folder.mkdir()
    images, labels = crops(32, (16, 16))
    for split, part in {'train': slice(24), 'test': slice(24, 32)}.items():
        np.savez_compressed(folder / f'{split}.npz', image=images[part], label=labels[part])
    Path('folds.txt').write_text('0 1 2 3 4 5 6 7\n8 9 10 11 12 13 14 15\n')


def write_voc(year):
    """Writes eight images with a cat or a dog each, their masks, and proposals."""
    for name in ('JPEGImages', 'Annotations', 'SegmentationClass', 'ImageSets/Main', 'ImageSets/Segmentation'):
        (year / name).mkdir(parents=True)
    images, labels = crops(8, SIZE)
    names, boxes = [f'{n:06}' for n in range(8)], []
    height, width = SIZE
    for n, (name, label) in enumerate(zip(names, labels)):
        what, value = list(CLASSES.items())[label]
        PIL.Image.fromarray(images[n]).save(year / 'JPEGImages' / f'{name}.png')
        xml = f'<size><height>{height}</height><width>{width}</width></size>{OBJECT.format(name=what)}'
        (year / 'Annotations' / f'{name}.xml').write_text(f'<annotation>{xml}</annotation>')
        mask = np.zeros(SIZE, np.uint8)
        mask[4:16, 3:15] = value
        image = PIL.Image.fromarray(mask)
        image.putpalette(list(range(256)) * 3)
        image.save(year / 'SegmentationClass' / f'{name}.png')
        shift = np.random.default_rng(n).integers(-2, 3, (12, 4))
        boxes.append(np.clip(np.array([3, 4, 14, 15]) + shift, 0, 18).astype(np.float32))
    for lists in ('Main', 'Segmentation'):
        for split, part in {'trainval': names[:6], 'test': names[6:]}.items():
            (year / 'ImageSets' / lists / f'{split}.txt').write_text(''.join(f'{name}\n' for name in part))
    proposals.write_file('boxes.npz', names, boxes)


def run(name, *arguments, **updates):
    """Runs a configuration in a work directory, of which nothing is kept that is not read again."""
    pipeline.run(configure(*arguments, **updates), name)
    for folder in ('tensorboard', 'figures'):
        shutil.rmtree(Path(name) / folder, ignore_errors=True)


def outputs(image):
    """Returns what the exports compute of an image [H, W, 3]."""
    boxes = np.array([(3, 4, 14, 15), (0, 0, 23, 19)], np.float32)
    features = artifacts_jax.load_features('pretraining/export')(image[None])
    found = {f'features_{name}': np.asarray(x) for name, x in features.items()}
    encoder = artifacts_jax.load_features('pretraining/autoencoder/export')(image[None, :16, :16])
    found |= {f'encoder_{name}': np.asarray(x) for name, x in encoder.items()}
    for protocol in ('linear', 'finetune'):
        classify = artifacts_jax.load_classifier(f'pretraining/transfer/{protocol}/export')
        found[f'classifier_{protocol}'] = np.asarray(classify(image[None, :16, :16]))
    detected = artifacts_jax.load_detector('voc2007/voc_detection/single_scale_frozen1/export')(image, boxes)
    found |= {'detector_scores': np.asarray(detected.scores), 'detector_boxes': np.asarray(detected.boxes)}
    found['segmenter'] = np.asarray(artifacts_jax.load_segmenter('voc2012/voc_segmentation/fcn/export')(image))
    return found


def main(out):
    """Makes the work directories in a temporary folder, and the archive."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        batches.SIZE_MULTIPLE = 24  # of segmentation: small images need no more
        write_arrays(Path('images'))
        write_voc(Path('VOCdevkit/VOC2007'))
        run('pretraining', ('autoencoder', 'artifacts', 'probe', 'knn', 'transfer', 'layerwise'), {'name': 'images'})
        voc = {'name': 'VOCdevkit/VOC2007', 'train': 'trainval', 'probe_train': 'trainval', 'test': 'test'}
        export = {'pretrained': 'pretraining/export'}
        run('voc2007', ('voc_classification', 'voc_svm', 'voc_detection'), voc, **export)
        run('voc2012', ('voc_segmentation', 'segmentation_probe'), voc, **export)
        image = crops(1, SIZE)[0][0]
        np.savez_compressed('outputs.npz', image=image, **outputs(image))
        with tarfile.open(out, 'w:xz', preset=9) as archive:
            for path in sorted(os.listdir()):
                archive.add(path)


if __name__ == '__main__':
    main(Path(sys.argv[1]).absolute())
