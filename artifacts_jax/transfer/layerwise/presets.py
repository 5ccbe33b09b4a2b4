"""The published protocols of layer-wise linear classifiers: every constant, in one table, with its source.

| preset | source |
|---|---|
| zhang2016 | richzhang/colorization, feature_learning_tests/linear: train_val.prototxt and solver.prototxt |
| fair | facebookresearch/fair_self_supervision_benchmark, configs/legacy_tasks/imagenet_linear_tune |
| vissl | facebookresearch/vissl, configs/config/benchmark/linear_image_classification, eval_alexnet_8gpu_transfer |
| deepcluster | facebookresearch/deepcluster, eval_linear.py |
| asano | yukimasano/linear-probes, eval_linear_probes.py and data.py |

Not known: whether the resizing of zhang2016, of a Caffe of its own, is the bilinear one that is used here.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
MAPS = (55, 27, 13, 13, 13)  # sides of the layers' maps that the windows below are for
GRIDS = (10, 6, 5, 5, 6)  # and of what is left of them: 9,600 or 9,216 values


class Window(NamedTuple):
    """A pooling window: pixels wide, between windows, and of padding on each side."""

    size: int
    stride: int
    padding: int = 0


OVERLAPPING = (Window(19, 4), Window(12, 3), Window(9, 1), Window(9, 1), Window(8, 1))
DISJOINT = (Window(6, 6, 3), Window(4, 4), Window(3, 3, 1), Window(3, 3, 1), Window(2, 2))


class Preset(NamedTuple):
    """A protocol. Learning rates are for its batch size; momentum is 0.9 in all."""

    geometry: str  # of models/alexnet.py
    crop: str  # in training, of data/views.py
    size: int  # of the crop, pixels, of an image of 256
    pooling: str  # 'resize', 'average' or 'max'
    windows: tuple[Window, ...]
    norm: str  # batch norm before the layer: 'none', 'plain', or 'affine' with scale and offset
    norm_decay: float  # of its running averages
    statistics: int  # images whose statistics it takes: those on one device
    weights: str  # the first: 'zeros', 'gaussian' of 0.01, 'xavier' (uniform), 'torch' (uniform, biases too)
    batch_size: int
    epochs: int  # 0: `steps` counts instead
    steps: int
    rate: float
    drops: tuple[float, ...]  # parts of the run after which the rate is a tenth; () is DeepCluster's steady decline
    decay: float  # of weights
    bias_decay: float
    bias_rate: float  # factor on the rate
    momentum: str  # of caffe_sgd.py: 'caffe' or 'torch'
    ten_crop: str  # what is averaged over ten crops, if asked: 'logits' or 'softmax'


CAFFE: dict[str, Any] = {'geometry': 'caffe', 'size': 227, 'norm': 'plain', 'norm_decay': 0.999, 'batch_size': 256}
CAFFE |= {'epochs': 0, 'steps': 140_000, 'rate': 0.01, 'drops': (2 / 7, 4 / 7, 6 / 7), 'decay': 5e-4}
CAFFE |= {'momentum': 'caffe', 'ten_crop': 'logits'}
TORCH: dict[str, Any] = {'geometry': 'torch', 'size': 224, 'steps': 0, 'rate': 0.01, 'bias_rate': 1.0}
TORCH |= {'momentum': 'torch'}

# fmt: off
PRESETS = {
    'zhang2016': Preset(
        **CAFFE, crop='random_crop', pooling='resize', windows=(), statistics=64, weights='zeros',
        bias_decay=0.0, bias_rate=2.0,
    ),
    'fair': Preset(
        **CAFFE, crop='centre_crop_flipped', pooling='average', windows=OVERLAPPING, statistics=32, weights='gaussian',
        bias_decay=5e-4, bias_rate=1.0,
    ),
    'vissl': Preset(
        **TORCH, crop='random_crop', pooling='average', windows=OVERLAPPING, norm='affine', norm_decay=0.9,
        statistics=32, weights='torch', batch_size=256, epochs=28, drops=(8 / 28, 16 / 28, 24 / 28), decay=5e-4,
        bias_decay=5e-4, ten_crop='logits',
    ),
    'deepcluster': Preset(
        **TORCH, crop='random_crop', pooling='average', windows=DISJOINT, norm='none', norm_decay=0.0, statistics=0,
        weights='torch', batch_size=256, epochs=90, drops=(), decay=1e-4, bias_decay=1e-4, ten_crop='softmax',
    ),
    'asano': Preset(
        **TORCH, crop='random_resized_crop', pooling='max', windows=DISJOINT, norm='plain', norm_decay=0.9,
        statistics=192, weights='xavier', batch_size=192, epochs=36, drops=(10 / 36, 20 / 36, 30 / 36), decay=1e-5,
        bias_decay=1e-5, ten_crop='logits',
    ),
}
# fmt: on


def plan(preset: Preset, images: int, *, batch_size: int = 0, epochs: int = 0) -> tuple[int, int]:
    """Returns (steps, images in a batch) of a run.

    Args:
      preset: the protocol.
      images: in the training split; an epoch has whole batches only.
      batch_size: in place of the preset's, unless 0.
      epochs: in place of the preset's, unless 0.
    """
    batch_size, epochs = batch_size or preset.batch_size, epochs or preset.epochs
    return epochs * max(1, images // batch_size) if epochs else preset.steps, batch_size


def make_schedule(preset: Preset, steps: int) -> Callable:
    """Returns the learning rate by step, over a run of `steps`."""
    if preset.drops:
        return optax.piecewise_constant_schedule(preset.rate, {round(part * steps): 0.1 for part in preset.drops})
    return lambda step: preset.rate / jnp.sqrt(1 + preset.rate * preset.decay * step)
