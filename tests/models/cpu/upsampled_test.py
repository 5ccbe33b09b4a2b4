from functools import partial

import pytest

from artifacts_jax.models import layers
from artifacts_jax.models.cpu import upsampled
from tests.models.cpu.products_test import convolve, equal_with_gradients


@pytest.mark.parametrize('kind', ['half_pixel', 'legacy'])
@pytest.mark.parametrize('size', [(1, 1), (1, 2), (2, 3), (5, 4)])  # every border, alone and with others
def test_upsampled_convolution_equals_upsampling_and_a_convolution(size, kind):
    equal_with_gradients(
        partial(upsampled.convolution, kind=kind),
        lambda x, kernel: convolve(layers.upsample_bilinear(x, kind), kernel),
        (2, *size, 3),
        (3, 3, 3, 4),
    )
