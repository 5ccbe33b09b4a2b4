from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax import layers, products


def convolve(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))


def equal_with_gradients(fast, plain, x, kernel):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], x), jax.random.normal(keys[1], kernel)
    expected, pull = jax.vjp(plain, x, kernel)
    result, fast_pull = jax.vjp(fast, x, kernel)
    np.testing.assert_allclose(result, expected, atol=1e-5, rtol=1e-5)
    gradient = jax.random.normal(keys[2], expected.shape)
    for ours, theirs in zip(fast_pull(gradient), pull(gradient)):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize('kind', ['half_pixel', 'legacy'])
@pytest.mark.parametrize('size', [(1, 1), (1, 2), (2, 3), (5, 4)])  # every border, alone and with others
def test_upsampled_convolution_equals_upsampling_and_a_convolution(size, kind):
    equal_with_gradients(
        partial(products.upsampled_convolution, kind=kind),
        lambda x, kernel: convolve(layers.upsample_bilinear(x, kind), kernel),
        (2, *size, 3),
        (3, 3, 3, 4),
    )


@pytest.mark.parametrize('size', [1, 2, 3])
def test_patch_convolution_equals_a_strided_one(size):
    shape = (2, 2 * size, 3 * size, 3)
    equal_with_gradients(products.patch_convolution, partial(convolve, stride=size), shape, (size, size, 3, 4))


@pytest.mark.parametrize(('size', 'stride'), [(3, 2), (5, 2), (11, 4), (2, 2)])
@pytest.mark.parametrize('shape', [(8, 12), (7, 9)])
def test_strided_convolution_equals_xlas(shape, size, stride):
    fast = partial(products.strided_convolution, stride=stride)
    equal_with_gradients(fast, partial(convolve, stride=stride), (2, *shape, 3), (size, size, 3, 4))


def test_matmul_equals_numpys():
    equal_with_gradients(products.matmul, jnp.matmul, (5, 3), (3, 4))


def test_fast_forms_keep_the_type():
    x, kernel = jnp.ones((1, 2, 2, 3), jnp.bfloat16), jnp.ones((3, 3, 3, 4), jnp.bfloat16)
    y, pull = jax.vjp(partial(products.upsampled_convolution, kind='half_pixel'), x, kernel)
    assert {y.dtype, *(g.dtype for g in pull(y))} == {jnp.dtype(jnp.bfloat16)}


def test_dense_layer_over_all_axes_equals_flax():
    layer = nn.DenseGeneral(5, axis=(1, 2, 3), use_bias=False)
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    variables = layer.init(jax.random.key(1), x)
    fast = layer.clone(dot_general=products.dot_general)
    np.testing.assert_allclose(fast.apply(variables, x), layer.apply(variables, x), atol=1e-5)
    with pytest.raises(ValueError, match='expected all axes of x but the first'):
        nn.DenseGeneral(5, dot_general=products.dot_general).init(jax.random.key(1), x)
