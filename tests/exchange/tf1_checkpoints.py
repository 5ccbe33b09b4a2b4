"""Checkpoints as the authors' code writes them, of small networks: their variables by name, and TensorFlow files."""

import re
import zlib

import numpy as np

from tests.conftest import tiny

# Layers and the shapes of their weights, for the tiny config; its decoder of three layers has no deconv_1.
AUTOENCODER = {
    'encoder/conv_0': (3, 3, 3, 4),
    'encoder/conv_1': (2, 2, 4, 8),
    'encoder/conv_2': (2, 2, 8, 8),
    'decoder/deconv_0': (3, 3, 8, 8),
    'decoder/deconv_2': (3, 3, 8, 4),
    'decoder/deconv_3': (3, 3, 4, 3),
}


REPAIR = {
    'generator/repair_0/conv1': (3, 3, 9, 8),
    'generator/repair_0/conv2': (3, 3, 8, 8),
    'generator/repair_1/conv1': (3, 3, 9, 8),
    'generator/repair_1/conv2': (3, 3, 8, 8),
    'generator/repair_2/conv1': (3, 3, 5, 4),
    'generator/repair_2/conv2': (3, 3, 4, 4),
}


TRUNK = {
    'discriminator/conv_1': (3, 3, 3, 4),
    'discriminator/conv_2/conv_0': (3, 3, 2, 4),
    'discriminator/conv_2/conv_1': (3, 3, 2, 4),
    'discriminator/conv_3': (3, 3, 8, 8),
    'discriminator/conv_4/conv_0': (3, 3, 4, 4),
    'discriminator/conv_4/conv_1': (3, 3, 4, 4),
    'discriminator/conv_5/conv_0': (3, 3, 4, 4),
    'discriminator/conv_5/conv_1': (3, 3, 4, 4),
}


DISCRIMINATOR = {
    **TRUNK,
    'discriminator/drop_pred': (3, 3, 8, 1),
    'discriminator/fc_1': (4, 4, 8, 16),
    'discriminator/fc_2': (1, 1, 16, 2),
}


LINEAR = {'fully_connected/fc1': (4, 4, 8, 5)}


FINETUNE = {
    'fully_connected/fc_1': (4, 4, 8, 6),
    'fully_connected/fc_2': (1, 1, 6, 6),
    'fully_connected/fc3': (1, 1, 6, 5),
}


KINDS = {
    'autoencoder': AUTOENCODER,
    'game': {**AUTOENCODER, **REPAIR, **DISCRIMINATOR},
    'linear': {**DISCRIMINATOR, **LINEAR},
    'finetune': {**TRUNK, **FINETUNE},
}


BIASED = re.compile(r'decoder/deconv_3|.*/conv2|discriminator/(conv_[1-4].*|drop_pred|fc_2)|fully_connected/fc[13]')


SCALED = re.compile('(encoder|decoder|generator)/.*')


WHAT_ELSE_TRAINING_SAVES = {
    'global_step': (),
    'beta1_power': (),
    'beta2_power_1': (),
    '{weights}/Adam': (3, 3),
    '{weights}/Adam_1': (3, 3),
    '{weights}/Momentum': (3, 3),
    '{norm}/moving_mean/biased': (4,),
    '{norm}/moving_mean/local_step': (),
}


def draw(name, shape):
    """The array of a name."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    return np.exp(x) if name.endswith('moving_variance') else x


def variables(layers):
    """{TensorFlow name: array} of the variables that layers have."""
    shapes = {}
    for layer, shape in layers.items():
        shapes[f'{layer}/weights'] = shape
        if BIASED.fullmatch(layer):
            shapes[f'{layer}/biases'] = shape[-1:]
        else:
            norm = ('gamma', 'beta', 'moving_mean', 'moving_variance')[0 if SCALED.match(layer) else 1 :]
            shapes |= {f'{layer}/BatchNorm/{name}': shape[-1:] for name in norm}
    return {name: draw(name, shape) for name, shape in shapes.items()}


def clutter(names):
    """{TensorFlow name: array} of what else the authors' training saves, which says nothing about the networks."""
    weights = next(name for name in names if name.endswith('/weights'))
    norm = next(name for name in names if name.endswith('BatchNorm/beta')).removesuffix('/beta')
    extra = {name.format(weights=weights, norm=norm): shape for name, shape in WHAT_ELSE_TRAINING_SAVES.items()}
    return {name: draw(name, shape) for name, shape in extra.items()}


def averages(arrays):
    """{TensorFlow name: array}: a moving average of whatever is trained."""
    trained = (name for name in arrays if 'moving_' not in name)
    return {f'{name}/ExponentialMovingAverage': arrays[name] + 1 for name in trained}


def write(path, arrays):
    """Writes a checkpoint file of exactly these names, as a Saver does."""
    import tensorflow as tf

    tf.raw_ops.SaveV2(
        prefix=str(path), tensor_names=list(arrays), shape_and_slices=[''] * len(arrays), tensors=list(arrays.values())
    )
    return path


def small():
    """The config of these networks; unequal widths of the heads tell them apart."""
    config = tiny()
    config.stl10.hidden = 6
    return config
