import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.models.cpu import in_place
from tests.compiling import AS_USERS


@pytest.mark.parametrize('reader', [3.0, np.inf, np.nan])
def test_the_gradient_is_unchanged_for_any_reader(reader):
    gradient = {'kernel': jnp.array([1.0, -2.0, np.inf]), 'bias': jnp.zeros(2)}
    result = in_place.wait_for_readers(gradient, [jnp.float32(reader), 0.0])
    jax.tree.map(np.testing.assert_array_equal, result, gradient)


def test_moving_average_equals_the_plain_formula():
    average, x = jax.random.normal(jax.random.key(0), (2, 100))
    np.testing.assert_allclose(in_place.moving_average(average, x, 0.9), 0.9 * average + 0.1 * x, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('waits', [True, False])
def test_parameters_are_copied_unless_the_update_waits_for_readers(waits):
    def update(params, x):
        value, gradient = jax.value_and_grad(lambda params: jnp.vdot(x @ params, x @ params))(params)
        read = jnp.linalg.norm(jnp.sin(params) @ params)
        gradient = in_place.wait_for_readers(gradient, [value, read]) if waits else gradient
        return params - 0.1 * gradient, value, read

    shapes = jax.ShapeDtypeStruct((512, 512), jnp.float32), jax.ShapeDtypeStruct((8, 512), jnp.float32)
    compiled = jax.jit(update, donate_argnums=0, compiler_options=AS_USERS).lower(*shapes).compile()
    copies = re.findall(r'f32\[512,512\]\S* copy\(', compiled.as_text())
    assert bool(copies) is not waits
