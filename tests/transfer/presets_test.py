"""Compares the constants of the transfer tasks with the numbers of their protocols, which are repeated here by hand."""

import pytest

from artifacts_jax.configs import default, tasks
from artifacts_jax.configs.transfer import voc12_segmentation
from artifacts_jax.data import crops
from artifacts_jax.models import alexnet, boxes, fcn, roi_pooling
from artifacts_jax.transfer.layerwise import presets as layerwise
from artifacts_jax.transfer.voc.classification import stage as classification
from artifacts_jax.transfer.voc.detection import detections, detector, scales, targets
from artifacts_jax.transfer.voc.detection import stage as detection
from artifacts_jax.transfer.voc.segmentation import segmenter
from artifacts_jax.transfer.voc.segmentation import stage as segmentation

IMAGENET = 1_281_167  # training images

LAYERWISE = {
    'zhang2016': {
        'crop': 'random_crop',
        'size': 227,
        'pooling': 'resize',
        'norm': 'plain',
        'norm_decay': 0.999,
        'statistics': 64,
        'weights': 'zeros',
        'batch_size': 256,
        'rate': 0.01,
        'decay': 0.0005,
        'bias_decay': 0.0,
        'bias_rate': 2.0,
        'momentum': 'caffe',
    },
    'fair': {
        'crop': 'centre_crop_flipped',
        'size': 227,
        'pooling': 'average',
        'windows': ((19, 4, 0), (12, 3, 0), (9, 1, 0), (9, 1, 0), (8, 1, 0)),
        'norm': 'plain',
        'norm_decay': 0.999,
        'weights': 'gaussian',
        'batch_size': 256,
        'rate': 0.01,
        'decay': 0.0005,
        'bias_decay': 0.0005,
        'bias_rate': 1.0,
        'momentum': 'caffe',
    },
    'vissl': {
        'crop': 'random_crop',
        'size': 224,
        'pooling': 'average',
        'windows': ((19, 4, 0), (12, 3, 0), (9, 1, 0), (9, 1, 0), (8, 1, 0)),
        'norm': 'affine',
        'weights': 'torch',
        'batch_size': 256,
        'epochs': 28,
        'rate': 0.01,
        'decay': 0.0005,
        'bias_decay': 0.0005,
        'momentum': 'torch',
    },
    'deepcluster': {
        'crop': 'random_crop',
        'size': 224,
        'pooling': 'average',
        'windows': ((6, 6, 3), (4, 4, 0), (3, 3, 1), (3, 3, 1), (2, 2, 0)),
        'norm': 'none',
        'batch_size': 256,
        'epochs': 90,
        'rate': 0.01,
        'decay': 0.0001,
        'momentum': 'torch',
        'ten_crop': 'softmax',
    },
    'asano': {
        'crop': 'random_resized_crop',
        'size': 224,
        'pooling': 'max',
        'windows': ((6, 6, 3), (4, 4, 0), (3, 3, 1), (3, 3, 1), (2, 2, 0)),
        'norm': 'plain',
        'weights': 'xavier',
        'batch_size': 192,
        'epochs': 36,
        'rate': 0.01,
        'decay': 0.00001,
        'momentum': 'torch',
        'ten_crop': 'logits',
    },
}
CONSTANTS = {  # {protocol: (constants of the code, expected constants)}
    **{
        f'layerwise, {name}': ({key: getattr(layerwise.PRESETS[name], key) for key in row}, row)
        for name, row in LAYERWISE.items()
    },
    'classification, philkr': (
        [classification.PRESETS['philkr'][train] for train in ('all', 'fc6')],
        [(80_000, 0.001, 10_000), (80_000, 0.001, 10_000)],
    ),
    'classification, deepcluster': (
        [classification.PRESETS['deepcluster'][train] for train in ('all', 'fc6')],
        [(150_000, 0.001, 20_000), (150_000, 0.003, 5_000)],
    ),
    'classification': (
        (classification.CROPS, classification.DECAY, classification.BIAS_RATE, classification.CLIP),
        (10, 0.000001, 2, 10),
    ),
    'classification, crops': ((crops.SIDE, crops.SCALES), (227, (0.5, 2.0))),
    'detection, single_scale': (scales.PRESETS['single_scale'], ((600,), 1000, 40_000, 0.001, 30_000)),
    'detection, multi_scale': (
        scales.PRESETS['multi_scale'],
        ((480, 576, 688, 864, 1200), 2000, 40_000, 0.001, 30_000),
    ),
    'detection': ((detection.DECAY, detection.BIAS_RATE, detection.DROP), (0.0005, 2, 0.1)),
    'detection, RoIs': (
        (targets.ROIS_PER_IMAGE, targets.FOREGROUND_FRACTION, targets.BACKGROUND_IOU),
        (64, 0.25, 0.1),
    ),
    'detection, tests': ((detector.MAX_BOXES, detector.MEAN_BOXES, boxes.SUPPRESSION), (100, 40, 0.3)),
    'detection, pooling': ((roi_pooling.SIZE, roi_pooling.SCALE, detector.REFERENCE_SIDE), (6, 1 / 16, 224)),
    'detection, average precision': (detections.MIN_IOU, 0.5),
    'segmentation, fcn': (segmentation.PRESETS['fcn'], (100_000, 0.0001, (), 1, 0.0005)),
    'segmentation, zhang': (segmentation.PRESETS['zhang'], (150_000, 0.0001, (50_000, 100_000), 2, 0)),
    'segmentation': (
        (segmentation.IMAGES_PER_UPDATE, segmentation.MOMENTUM, segmentation.DECAY, segmentation.DROP),
        (20, 0.9, 0.0005, 0.1),
    ),
    'segmentation, biases': (segmentation.SCORE_BIAS_RATE, 2),
    'segmentation, padding': (
        (fcn.PADDING * 4, fcn.offset(), fcn.WINDOW, len(segmenter.CLASSES)),
        (100, 18, 6, 21),
    ),
}
PRESETS = {
    'layerwise': layerwise.PRESETS,
    'voc_classification': classification.PRESETS,
    'voc_detection': scales.PRESETS,
    'voc_segmentation': segmentation.PRESETS,
}
RATES = {  # {preset: {step: learning rate}}, for ImageNet
    'zhang2016': {39_999: 1e-2, 40_001: 1e-3, 80_001: 1e-4, 120_001: 1e-5, 139_999: 1e-5},
    'fair': {39_999: 1e-2, 40_001: 1e-3, 80_001: 1e-4, 120_001: 1e-5},
    'vissl': {8 * 5004 - 1: 1e-2, 8 * 5004 + 1: 1e-3, 16 * 5004 + 1: 1e-4, 24 * 5004 + 1: 1e-5},
    'deepcluster': {0: 1e-2, 90 * 5004: 0.01 / (1 + 0.01 * 1e-4 * 450_360) ** 0.5},
    'asano': {10 * 6672 - 1: 1e-2, 10 * 6672 + 1: 1e-3, 20 * 6672 + 1: 1e-4, 30 * 6672 + 1: 1e-5},
}


@pytest.mark.parametrize('name', CONSTANTS)
def test_constants_are_those_of_the_protocols(name):
    found, expected = CONSTANTS[name]
    assert found == expected


def test_every_preset_is_in_the_table():
    assert list(LAYERWISE) == list(layerwise.PRESETS)
    for name, section in (('classification', 'voc_classification'), ('detection', 'voc_detection')):
        assert {f'{name}, {preset}' for preset in PRESETS[section]} <= CONSTANTS.keys()
    assert {f'segmentation, {preset}' for preset in segmentation.PRESETS} <= CONSTANTS.keys()


@pytest.mark.parametrize('section', PRESETS)
def test_keys_offer_every_preset(section):
    assert tasks.KEYS[section]['preset'].values.split(', ') == list(PRESETS[section])


def test_defaults_are_those_of_the_protocols():
    config = default.get_config()
    assert (config.voc_classification.batch_size, config.voc_classification.crop_size) == (16, crops.SIDE)
    assert tasks.VOC_CLASSIFICATION['train'].values.split(', ') == list(classification.TRAINED)
    options = config.voc_detection
    assert (options.frozen, options.batch_size, options.regions) == (1, 2, targets.ROIS_PER_IMAGE)
    assert config.voc_segmentation.batch_size == segmentation.IMAGES_PER_UPDATE
    assert voc12_segmentation.get_config().accumulate == segmentation.IMAGES_PER_UPDATE
    assert tuple(alexnet.GEOMETRIES) == tasks.GEOMETRIES
    assert {preset.geometry for preset in layerwise.PRESETS.values()} <= set(tasks.GEOMETRIES)


@pytest.mark.parametrize('name', layerwise.PRESETS)
def test_learning_rates_are_those_of_the_protocols(name):
    steps, _ = layerwise.get_steps_and_batch_size(layerwise.PRESETS[name], IMAGENET)
    schedule = layerwise.make_schedule(layerwise.PRESETS[name], steps)
    assert {step: float(schedule(step)) for step in RATES[name]} == pytest.approx(RATES[name])


def test_plans_count_whole_batches_and_may_be_changed():
    presets = layerwise.PRESETS
    assert layerwise.get_steps_and_batch_size(presets['fair'], IMAGENET) == (140_000, 256)
    assert layerwise.get_steps_and_batch_size(presets['asano'], IMAGENET) == (36 * 6672, 192)
    assert layerwise.get_steps_and_batch_size(presets['fair'], 100, batch_size=30, epochs=2) == (6, 30)
    assert layerwise.get_steps_and_batch_size(presets['vissl'], 100, epochs=1) == (1, 256)
