"""The published protocols of layer-wise linear classifiers: all constants, with their sources.

| preset | source |
|---|---|
| zhang2016 | richzhang/colorization, feature_learning_tests/linear: train_val.prototxt and solver.prototxt |
| fair | facebookresearch/fair_self_supervision_benchmark, configs/legacy_tasks/imagenet_linear_tune |
| vissl | facebookresearch/vissl, configs/config/benchmark/linear_image_classification, eval_alexnet_8gpu_transfer |
| deepcluster | facebookresearch/deepcluster, eval_linear.py |
| asano | yukimasano/linear-probes, eval_linear_probes.py and data.py |

The interpolation of zhang2016 is unknown, because it uses a modified version of Caffe. This code resizes bilinearly.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import optax

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
MAPS = (55, 27, 13, 13, 13)  # sides of the feature maps for which the pooling windows below are defined
GRIDS = (10, 6, 5, 5, 6)  # sides of the maps after pooling, which have 9,600 or 9,216 values


class Window(NamedTuple):
    """A pooling window: its size, stride and padding on each side, in positions of the feature map."""

    size: int
    stride: int
    padding: int = 0


OVERLAPPING = (Window(19, 4), Window(12, 3), Window(9, 1), Window(9, 1), Window(8, 1))
DISJOINT = (Window(6, 6, 3), Window(4, 4), Window(3, 3, 1), Window(3, 3, 1), Window(2, 2))


class Preset(NamedTuple):
    """A protocol. Its learning rate is for its batch size. All protocols use momentum 0.9."""

    geometry: str  # padding of the trunk, a key of alexnet.GEOMETRIES
    crop: str  # crop in training, a function of data/views.py
    size: int  # side of the crop, in pixels of a 256x256 image
    pooling: str  # 'resize', 'average' or 'max'
    windows: tuple[Window, ...]
    norm: str  # batch norm before the layer: 'none', 'plain', or 'affine' with scale and offset
    norm_decay: float  # decay of the running averages of batch norm
    statistics: int  # images in a group with common batch norm statistics: those on one device in the source
    weights: str  # initial weights: 'zeros', 'gaussian' (0.01), 'xavier' (uniform), 'torch' (uniform, also biases)
    batch_size: int
    epochs: int  # 0: `steps` is the length of the training
    steps: int
    rate: float  # initial learning rate
    drops: tuple[float, ...]  # fractions of the run at which the rate drops to a tenth; (): DeepCluster's smooth decay
    decay: float  # weight decay of the weights
    bias_decay: float  # weight decay of the biases
    bias_rate: float  # factor on the learning rate of the biases
    momentum: str  # form of the momentum, see caffe_sgd.py: 'caffe' or 'torch'
    ten_crop: str  # values averaged over ten crops: 'logits' or 'softmax'


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


def get_steps_and_batch_size(
    preset: Preset, num_images: int, *, batch_size: int = 0, epochs: int = 0
) -> tuple[int, int]:
    """Returns (number of steps, images in a batch).

    Args:
      preset: the protocol.
      num_images: number of training images; an epoch has only full batches.
      batch_size: replaces the preset's batch size, unless 0.
      epochs: replaces the preset's epochs, unless 0.
    """
    batch_size, epochs = batch_size or preset.batch_size, epochs or preset.epochs
    return epochs * max(1, num_images // batch_size) if epochs else preset.steps, batch_size


def make_schedule(preset: Preset, steps: int) -> Callable:
    """Returns the learning rate schedule of a training of `steps` steps."""
    if preset.drops:
        return optax.piecewise_constant_schedule(
            preset.rate, {round(fraction * steps): 0.1 for fraction in preset.drops}
        )
    return lambda step: preset.rate / jnp.sqrt(1 + preset.rate * preset.decay * step)
