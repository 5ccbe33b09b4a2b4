"""The table of constants against the numbers of the protocols, written out again by hand."""

import pytest

from artifacts_jax.configs import tasks
from artifacts_jax.models import alexnet
from artifacts_jax.transfer.layerwise import presets
from artifacts_jax.transfer.layerwise.presets import PRESETS

IMAGENET = 1_281_167

BY_HAND = {
    'zhang2016': {
        'crop': 'random',
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
        'crop': 'centre_mirrored',
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
        'crop': 'random',
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
        'crop': 'random',
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
        'crop': 'resized',
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
RATES = {  # {preset: {step: rate}}, of ImageNet
    'zhang2016': {39_999: 1e-2, 40_001: 1e-3, 80_001: 1e-4, 120_001: 1e-5, 139_999: 1e-5},
    'fair': {39_999: 1e-2, 40_001: 1e-3, 80_001: 1e-4, 120_001: 1e-5},
    'vissl': {8 * 5004 - 1: 1e-2, 8 * 5004 + 1: 1e-3, 16 * 5004 + 1: 1e-4, 24 * 5004 + 1: 1e-5},
    'deepcluster': {0: 1e-2, 90 * 5004: 0.01 / (1 + 0.01 * 1e-4 * 450_360) ** 0.5},
    'asano': {10 * 6672 - 1: 1e-2, 10 * 6672 + 1: 1e-3, 20 * 6672 + 1: 1e-4, 30 * 6672 + 1: 1e-5},
}


@pytest.mark.parametrize('name', PRESETS)
def test_constants_are_those_of_the_protocols(name):
    found = {key: getattr(PRESETS[name], key) for key in BY_HAND[name]}
    assert found == BY_HAND[name]


@pytest.mark.parametrize('name', PRESETS)
def test_learning_rates_are_those_of_the_protocols(name):
    steps, _ = presets.plan(PRESETS[name], IMAGENET)
    schedule = presets.schedule(PRESETS[name], steps)
    assert {step: float(schedule(step)) for step in RATES[name]} == pytest.approx(RATES[name])


def test_plans_count_whole_batches_and_may_be_changed():
    assert presets.plan(PRESETS['fair'], IMAGENET) == (140_000, 256)
    assert presets.plan(PRESETS['asano'], IMAGENET) == (36 * 6672, 192)
    assert presets.plan(PRESETS['fair'], 100, batch_size=30, epochs=2) == (6, 30)
    assert presets.plan(PRESETS['vissl'], 100, epochs=1) == (1, 256)


def test_keys_offer_what_there_is():
    assert tasks.LAYERWISE['preset'].values.split(', ') == list(PRESETS)
    assert tuple(alexnet.GEOMETRIES) == tasks.GEOMETRIES
    assert {preset.geometry for preset in PRESETS.values()} <= set(tasks.GEOMETRIES)
