"""Data-dependent initialisation of AlexNet (Kraehenbuehl et al., ICLR 2016).

New layers are normalised by their outputs on training images; then all layers are scaled to learn at the same rate.
Source: philkr/magic_init, without its k-means. It uses ten batches of 16 images. Batch norm must be folded into the
convolutions before. Dropout is off.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from artifacts_jax.models import layers
from artifacts_jax.models.alexnet import AlexNet, pool5
from artifacts_jax.models.discriminator import preprocess

IMAGES = 160
BIAS = 0.1  # mean output of each unit of a new layer, before ReLU
ROUNDS = 10
TOLERANCE = 0.01  # relative difference of the logarithms of a ratio and its target
NEW_LAYERS = ('fc6', 'fc7')
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')

Images = Float[Array, 'B H W 3']


def initialise_head(key: Key[Array, ''], params: dict, model: AlexNet, images: Images) -> dict:
    """Initialises fc6 and fc7 so that each unit has mean BIAS and standard deviation 1 over the images, before ReLU.

    Args:
      key: random key for the weights.
      params: the parameters, {'trunk': ..., 'head': ...}.
      model: the network.
      images: training images, in [-1, 1].

    Returns:
      The parameters; those of the trunk and of fc8 are unchanged.
    """
    head = dict(params['head'])
    for name, layer_key in zip(NEW_LAYERS, jax.random.split(key, len(NEW_LAYERS))):
        shape = head[name]['kernel'].shape
        kernel = jax.random.normal(layer_key, shape)
        head[name] = {'kernel': kernel, 'bias': jnp.zeros(shape[-1])}
        head[name] = _normalise_layer(kernel, _compute_outputs({**params, 'head': head}, images, model=model)[name])
    return {**params, 'head': head}


def initialise_connected(key: Key[Array, ''], head: dict, inputs: Float[Array, 'N D'], units: int) -> dict:
    """Initialises fc6 and fc7 of a head as `initialise_head` does, from given inputs of fc6.

    Args:
      key: random key for the weights.
      head: the parameters of the head, {layer: {'kernel', 'bias'}}; kernels of convolutions keep their shape.
      inputs: the inputs of fc6 for training images.
      units: the number of outputs of each layer.

    Returns:
      The parameters of the head.
    """
    head = dict(head)
    for name, layer_key in zip(NEW_LAYERS, jax.random.split(key, len(NEW_LAYERS))):
        kernel = jax.random.normal(layer_key, (inputs.shape[1], units))
        layer = _normalise_layer(kernel, inputs @ kernel)
        inputs = nn.relu(inputs @ layer['kernel'] + layer['bias'][None])
        head[name] = {**layer, 'kernel': layer['kernel'].reshape(head[name]['kernel'].shape)}
    return head


def _normalise_layer(kernel, outputs):
    """Returns {'kernel', 'bias'} whose outputs have mean BIAS and standard deviation 1.

    `outputs` are those of the kernel without a bias.
    """
    mean, deviation = outputs.mean(0), outputs.std(0)
    deviation = jnp.where(deviation > 0, deviation, 1.0)  # 0 if all inputs are 0
    return {'kernel': kernel / deviation[None], 'bias': BIAS - mean / deviation}


def balance(key: Key[Array, ''], params: dict, model: AlexNet, images: Images) -> dict:
    """Scales the layers so that all learn at the same rate.

    The rate of a layer is the root mean square of the gradient of its weights, divided by that of its weights. The
    gradients at the outputs of the network are normal random numbers. The weights and biases of a layer are scaled by
    the same factor; biases are also scaled by the change of the layer's inputs. So the function that the network
    computes changes little, except for a factor.

    Args:
      key: random key for the gradients.
      params: the parameters, {'trunk': ..., 'head': ...}, without batch norm.
      model: the network.
      images: training images, in [-1, 1].

    Returns:
      The scaled parameters.
    """
    inputs = _measure_inputs(_compute_outputs(params, images, model=model), model)
    deviation = _compute_deviation(params, images, model)
    for round_key in jax.random.split(key, ROUNDS):
        ratios = _compute_ratios(round_key, params, images, model=model)
        logs = jnp.log(jnp.stack([ratios[name] for name in LAYERS]))
        target = jnp.mean(logs) + jnp.log(deviation) / len(LAYERS)
        if bool(jnp.all(jnp.abs(logs / target - 1) < TOLERANCE)):
            break
        for name in LAYERS:  # in order: scaling a layer changes the inputs of the next layers
            new_inputs = _measure_inputs(_compute_outputs(params, images, model=model), model)[name]
            factor = jnp.sqrt(ratios[name] / jnp.exp(target))
            params = _scale(params, name, factor, new_inputs / inputs[name])
            inputs[name] = new_inputs
        deviation = _compute_deviation(params, images, model)
    return params


@partial(jax.jit, static_argnames='model')
def _compute_outputs(params, images, *, model):
    """Returns {layer: outputs before ReLU}, and 'image', the input of conv1."""
    _, updates = model.apply({'params': params}, images, capture_intermediates=True, mutable=['intermediates'])
    outputs = updates['intermediates']
    maps = {name: outputs['trunk'][name]['__call__'][0] for name in LAYERS[:5]}
    return {'image': images, **maps, **{name: outputs['head'][name]['__call__'][0] for name in LAYERS[5:]}}


def _measure_inputs(outputs, model):
    """Returns {layer: mean absolute value of its inputs}."""
    magnitudes, x = {}, preprocess(outputs['image'])
    geometry = model.trunk.geometry
    paddings = {'conv1': geometry.pool1, 'conv2': geometry.pool2, 'conv5': pool5(geometry)}
    for name in LAYERS:
        magnitudes[name] = jnp.abs(x).mean()
        x = nn.relu(outputs[name])
        if name in paddings:
            x = layers.max_pool(x, paddings[name])
        if name in ('conv1', 'conv2'):
            x = layers.local_response_norm(x)
    return magnitudes


def _compute_deviation(params, images, model):
    """Returns the standard deviation of the outputs of fc8, as a mean over the units."""
    return _compute_outputs(params, images, model=model)['fc8'].std(0).mean()


@partial(jax.jit, static_argnames='model')
def _compute_ratios(key, params, images, *, model):
    """Returns {layer: root mean square of the gradient of its weights, divided by that of its weights}."""

    def weighted_sum(params: PyTree):
        outputs = model.apply({'params': params}, images)
        return (outputs * jax.random.normal(key, outputs.shape)).sum()

    gradients = jax.grad(weighted_sum)(params)
    return {name: _root_mean_square(gradients, name) / _root_mean_square(params, name) for name in LAYERS}


def _root_mean_square(params, name):
    """Returns the root mean square of the weights of a layer."""
    kernels = [x['kernel'].ravel() for x in _get_groups(params, name).values()]
    return jnp.sqrt(jnp.square(jnp.concatenate(kernels)).mean())


def _get_groups(params, name):
    """Returns {group: {'kernel', 'bias'}} of a layer; layers of the head have the single group ''."""
    return {'': params['head'][name]} if name in params['head'] else params['trunk'][name]


def _scale(params, name, factor, bias_factor):
    """Returns the parameters with a layer scaled by `factor`, and its biases also by `bias_factor`."""
    groups = {
        group: {'kernel': x['kernel'] * factor, 'bias': x['bias'] * factor * bias_factor}
        for group, x in _get_groups(params, name).items()
    }
    network = 'head' if name in params['head'] else 'trunk'
    return {**params, network: {**params[network], name: groups[''] if network == 'head' else groups}}
