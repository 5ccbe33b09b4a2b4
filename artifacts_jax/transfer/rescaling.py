"""Data-dependent initialisation of AlexNet (Kraehenbuehl et al., ICLR 2016): new layers by what they see, and balance.

Source: philkr/magic_init, without its k-means. It takes ten batches of 16 images, and knows no batch norm, which is
absorbed before. Dropout is off.
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
BIAS = 0.1
ROUNDS = 10
CLOSE = 0.01  # of the logarithm of a ratio to that of the target's
NEW = ('fc6', 'fc7')
LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8')

Images = Float[Array, 'B H W 3']


def initialise_head(key: Key[Array, ''], params: dict, model: AlexNet, images: Images) -> dict:
    """Draws fc6 and fc7 anew, such that every unit has mean BIAS and deviation 1 over the images, before its ReLU.

    Args:
      key: draws the weights.
      params: {'trunk': ..., 'head': ...}.
      model: the network.
      images: in [-1, 1].

    Returns:
      The parameters; those of the trunk and of fc8 are as they were.
    """
    head = dict(params['head'])
    for name, layer_key in zip(NEW, jax.random.split(key, len(NEW))):
        shape = head[name]['kernel'].shape
        kernel = jax.random.normal(layer_key, shape)
        head[name] = {'kernel': kernel, 'bias': jnp.zeros(shape[-1])}
        head[name] = _normalised(kernel, _outputs({**params, 'head': head}, images, model=model)[name])
    return {**params, 'head': head}


def initialise_connected(key: Key[Array, ''], head: dict, inputs: Float[Array, 'N D'], units: int) -> dict:
    """Returns a head's parameters with fc6 and fc7 drawn as `initialise` does, by what fc6 sees.

    Args:
      key: draws the weights.
      head: {layer: {'kernel', 'bias'}}; kernels of convolutions keep their shape.
      inputs: what fc6 sees.
      units: outputs of each layer.
    """
    head = dict(head)
    for name, layer_key in zip(NEW, jax.random.split(key, len(NEW))):
        kernel = jax.random.normal(layer_key, (inputs.shape[1], units))
        layer = _normalised(kernel, inputs @ kernel)
        inputs = nn.relu(inputs @ layer['kernel'] + layer['bias'][None])
        head[name] = {**layer, 'kernel': layer['kernel'].reshape(head[name]['kernel'].shape)}
    return head


def _normalised(kernel, seen):
    """Returns a layer whose outputs, which were `seen` without a bias, have mean BIAS and deviation 1."""
    mean, deviation = seen.mean(0), seen.std(0)
    deviation = jnp.where(deviation > 0, deviation, 1.0)  # of a layer that sees nothing
    return {'kernel': kernel / deviation[None], 'bias': BIAS - mean / deviation}


def balance(key: Key[Array, ''], params: dict, model: AlexNet, images: Images) -> dict:
    """Scales layers such that all change at the same rate: gradient by weight, as root mean squares.

    The gradient is of a random, normal one at the outputs. Weights and biases of a layer are scaled alike, and biases
    also as the layer's inputs are, so that the network computes nearly the same, but for a factor.

    Args:
      key: draws the gradients.
      params: {'trunk': ..., 'head': ...}, without batch norm.
      model: the network.
      images: in [-1, 1].
    """
    inputs = _inputs(_outputs(params, images, model=model), model)
    deviation = _deviation(params, images, model)
    for round_key in jax.random.split(key, ROUNDS):
        ratios = _ratios(round_key, params, images, model=model)
        logs = jnp.log(jnp.stack([ratios[name] for name in LAYERS]))
        target = jnp.mean(logs) + jnp.log(deviation) / len(LAYERS)
        if bool(jnp.all(jnp.abs(logs / target - 1) < CLOSE)):
            break
        for name in LAYERS:  # from the first, since what a layer sees has changed then
            now = _inputs(_outputs(params, images, model=model), model)[name]
            factor = jnp.sqrt(ratios[name] / jnp.exp(target))
            params = _scaled(params, name, factor, now / inputs[name])
            inputs[name] = now
        deviation = _deviation(params, images, model)
    return params


@partial(jax.jit, static_argnames='model')
def _outputs(params, images, *, model):
    """Returns {layer: what it computes before ReLU}, and 'image', what conv1 sees."""
    _, seen = model.apply({'params': params}, images, capture_intermediates=True, mutable=['intermediates'])
    found = seen['intermediates']
    maps = {name: found['trunk'][name]['__call__'][0] for name in LAYERS[:5]}
    return {'image': images, **maps, **{name: found['head'][name]['__call__'][0] for name in LAYERS[5:]}}


def _inputs(outputs, model):
    """Returns {layer: mean absolute value of what it sees}."""
    seen, x = {}, preprocess(outputs['image'])
    geometry = model.trunk.geometry
    paddings = {'conv1': geometry.pool1, 'conv2': geometry.pool2, 'conv5': pool5(geometry)}
    for name in LAYERS:
        seen[name] = jnp.abs(x).mean()
        x = nn.relu(outputs[name])
        if name in paddings:
            x = layers.max_pool(x, paddings[name])
        if name in ('conv1', 'conv2'):
            x = layers.local_response_norm(x)
    return seen


def _deviation(params, images, model):
    return _outputs(params, images, model=model)['fc8'].std(0).mean()


@partial(jax.jit, static_argnames='model')
def _ratios(key, params, images, *, model):
    """Returns {layer: root mean square of its weights' gradient, by that of the weights}."""

    def pulled(params: PyTree):
        outputs = model.apply({'params': params}, images)
        return (outputs * jax.random.normal(key, outputs.shape)).sum()

    gradients = jax.grad(pulled)(params)
    return {name: _size(gradients, name) / _size(params, name) for name in LAYERS}


def _size(params, name):
    kernels = [x['kernel'].ravel() for x in _parts(params, name).values()]
    return jnp.sqrt(jnp.square(jnp.concatenate(kernels)).mean())


def _parts(params, name):
    """Returns {group: {'kernel', 'bias'}} of a layer."""
    return {'': params['head'][name]} if name in params['head'] else params['trunk'][name]


def _scaled(params, name, factor, of_biases):
    parts = {
        part: {'kernel': x['kernel'] * factor, 'bias': x['bias'] * factor * of_biases}
        for part, x in _parts(params, name).items()
    }
    place = 'head' if name in params['head'] else 'trunk'
    return {**params, place: {**params[place], name: parts[''] if place == 'head' else parts}}
