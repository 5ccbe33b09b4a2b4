import jax.numpy as jnp
import numpy as np
import optax
import pytest

from artifacts_jax import optim
from configs import default


def test_learning_rate_falls_to_a_hundredth_over_nine_tenths():
    schedule = optim.schedule(3e-4, 1000, default.get_config())
    assert float(schedule(0)) == pytest.approx(3e-4)
    assert float(schedule(450)) == pytest.approx((3e-4 + 3e-6) / 2)
    assert float(schedule(900)) == float(schedule(1000)) == pytest.approx(3e-6)


def test_gradients_of_biases_are_doubled():
    config = default.get_config()
    config.optim.epsilon = 1e3  # so large that Adam's step is the gradient, scaled
    params = {'kernel': jnp.zeros(2), 'bias': jnp.zeros(2)}
    adam = optim.adam(1.0, config)
    updates, _ = adam.update({name: jnp.ones(2) for name in params}, adam.init(params), params)
    np.testing.assert_allclose(updates['bias'] / updates['kernel'], 2, rtol=1e-2)


def test_adam_is_optax_adam_with_the_references_constants():
    config = default.get_config()
    config.optim.bias_gradient_scale = 1.0
    params, gradients = {'kernel': jnp.ones(3)}, {'kernel': jnp.array([1.0, -2.0, 1e-5])}
    for optimiser in (optim.adam(3e-4, config), optax.adam(3e-4, 0.5, 0.999, 1e-5)):
        state = optimiser.init(params)
        for _ in range(2):
            updates, state = optimiser.update(gradients, state, params)
        last = updates['kernel']
        np.testing.assert_allclose(last[2], -3e-4 / 2, rtol=1e-3)  # epsilon halves the step of a gradient of 1e-5
