from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.models.cpu import products, upsampled
from tests.compiling import AS_USERS

pytestmark = pytest.mark.slow  # compiled as users do


def convolve(x, kernel, stride=1, padding='SAME'):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )


def equal_with_gradients(fast, plain, x, kernel, tolerance=1e-5):
    keys = jax.random.split(jax.random.key(0), 3)
    x, kernel = jax.random.normal(keys[0], x), jax.random.normal(keys[1], kernel)
    gradient = jax.random.normal(keys[2], jax.eval_shape(plain, x, kernel).shape)

    @partial(jax.jit, compiler_options=AS_USERS)
    def values(x, kernel):
        results = []
        for function in (fast, plain):
            result, vjp = jax.vjp(function, x, kernel)
            results.append((result, *vjp(gradient)))
        return results

    for result, expected in zip(*values(x, kernel), strict=True):
        np.testing.assert_allclose(result, expected, atol=tolerance * float(jnp.abs(expected).max()), rtol=0)


@pytest.mark.parametrize(
    ('form', 'shape', 'channels'),
    [
        ('winograd', (6, 9), 128),
        ('plain', (5, 6), 128),
        ('paired', (6, 6), 3),
        ('blocked', (5, 4), 3),
        ('blocked', (5, 8), 2),
        ('plain', (5, 6), 3),
        ('plain', (6, 6), 8),
    ],
)
def test_convolution_equals_xlas_for_each_method(form, shape, channels, monkeypatch):
    used = []
    for name, module, function in [
        ('winograd', products.winograd, 'convolution'),
        ('paired', products, '_paired_convolution'),
        ('blocked', products, '_blocked_convolution'),
    ]:
        original = getattr(module, function)
        monkeypatch.setattr(module, function, lambda *args, n=name, f=original: used.append(n) or f(*args))
    tolerance = 2e-5 if form == 'winograd' else 1e-6
    equal_with_gradients(products.convolution, convolve, (2, *shape, channels), (3, 3, channels, channels), tolerance)
    assert set(used) == {form} - {'plain'}


@pytest.mark.parametrize('size', [3, 5])
def test_convolution_from_few_channels_to_many_and_back_equals_xlas(size):
    for channels in ((3, 8), (8, 3)):
        equal_with_gradients(products.convolution, convolve, (2, 6, 8, channels[0]), (size, size, *channels))


def test_kernel_gradient_sums_over_microbatches(monkeypatch):
    monkeypatch.setattr(products, 'MICROBATCH', 2)
    equal_with_gradients(products.convolution, convolve, (5, 3, 3, 8), (3, 3, 8, 8))


@pytest.mark.parametrize(('shape', 'channels'), [((6, 6), 130), ((4, 6), 5)])
def test_constant_channels_get_no_gradient(shape, channels):
    def plain(x, kernel):
        return convolve(jnp.concatenate([x[..., :-2], jax.lax.stop_gradient(x[..., -2:])], -1), kernel)

    fast = partial(products.convolution, constant=2)
    equal_with_gradients(fast, plain, (2, *shape, channels), (3, 3, channels, 128), tolerance=2e-5)


@pytest.mark.parametrize('size', [1, 2, 3])
def test_patch_convolution_equals_a_strided_one(size):
    shape = (2, 2 * size, 3 * size, 3)
    equal_with_gradients(products.patch_convolution, partial(convolve, stride=size), shape, (size, size, 3, 4))


@pytest.mark.parametrize(('size', 'stride'), [(3, 2), (5, 2), (11, 4), (2, 2)])
@pytest.mark.parametrize('shape', [(8, 12), (7, 9)])
def test_strided_convolution_equals_xlas(shape, size, stride):
    fast = partial(products.strided_convolution, stride=stride)
    equal_with_gradients(fast, partial(convolve, stride=stride), (2, *shape, 3), (size, size, 3, 4))


@pytest.mark.parametrize('padding', [((0, 0), (0, 0)), ((5, 5), (5, 5)), ((2, 1), (0, 3))])
@pytest.mark.parametrize('shape', [(15, 16), (17, 18)])
def test_strided_convolution_with_explicit_padding(shape, padding):
    fast = partial(products.strided_convolution, stride=4, padding=padding)
    equal_with_gradients(fast, partial(convolve, stride=4, padding=padding), (2, *shape, 3), (11, 11, 3, 4))


@pytest.mark.parametrize('rows', [5, 2])  # more, and fewer, than the kernel's
def test_matmul_equals_numpys(rows):
    equal_with_gradients(products.matmul, jnp.matmul, (rows, 3), (3, 4))


def test_results_keep_the_dtype():
    x, kernel = jnp.ones((1, 2, 2, 3), jnp.bfloat16), jnp.ones((3, 3, 3, 4), jnp.bfloat16)
    y, vjp = jax.vjp(partial(upsampled.convolution, kind='half_pixel'), x, kernel)
    assert {y.dtype, *(g.dtype for g in vjp(y))} == {jnp.dtype(jnp.bfloat16)}


def test_dense_layer_over_all_axes_equals_flax():
    layer = nn.DenseGeneral(5, axis=(1, 2, 3), use_bias=False)
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))
    variables = layer.init(jax.random.key(1), x)
    fast = layer.clone(dot_general=products.dot_general)
    np.testing.assert_allclose(fast.apply(variables, x), layer.apply(variables, x), atol=1e-5)
    with pytest.raises(ValueError, match='expected all axes of x except the first'):
        nn.DenseGeneral(5, dot_general=products.dot_general).init(jax.random.key(1), x)
