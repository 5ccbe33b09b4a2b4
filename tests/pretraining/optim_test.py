import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.configs import default
from artifacts_jax.pretraining import optim


def test_learning_rate_falls_to_a_hundredth_over_nine_tenths():
    schedule = optim.schedule(3e-4, 1000, default.get_config())
    assert float(schedule(0)) == pytest.approx(3e-4)
    assert float(schedule(450)) == pytest.approx((3e-4 + 3e-6) / 2)
    assert float(schedule(900)) == float(schedule(1000)) == pytest.approx(3e-6)


@pytest.mark.parametrize(('steps', 'fraction'), [(1, 0.9), (1, 0.1), (1000, 0.0)])
def test_learning_rate_decays_within_one_step_in_short_schedules(steps, fraction):
    config = default.get_config()
    config.optim.decay_fraction = fraction
    schedule = optim.schedule(3e-4, steps, config)
    assert float(schedule(0)) == pytest.approx(3e-4)
    assert float(schedule(1)) == float(schedule(2)) == pytest.approx(3e-6)


def test_decay_of_the_moving_average_starts_small_and_is_bounded_by_the_configured_one():
    def decay(configured, step):
        return float(optim.moving_average({'w': jnp.ones(())}, {'w': jnp.zeros(())}, configured, step)['w'])

    assert decay(0.9, 0) == pytest.approx(0.1)
    assert decay(0.9, 80) == pytest.approx(0.9)  # 81 / 90
    assert decay(0.9, 1000) == pytest.approx(0.9)
    assert decay(0.0, 1000) == 0


def test_gradients_of_biases_are_doubled():
    config = default.get_config()
    config.optim.epsilon = 1e3  # so large that Adam's step is the gradient, scaled
    params = {'conv': {'kernel': jnp.zeros(2), 'bias': jnp.zeros(2)}, 'norm': {'bias': jnp.zeros(2)}}
    adam = optim.adam(1.0, config)
    updates, _ = adam.update(jax.tree.map(jnp.ones_like, params), adam.init(params), params)
    np.testing.assert_allclose(updates['conv']['bias'] / updates['conv']['kernel'], 2, rtol=1e-2)
    np.testing.assert_allclose(updates['norm']['bias'] / updates['conv']['kernel'], 1, rtol=1e-6)


@pytest.mark.parametrize('epsilon_hat', [False, True])
def test_adam_has_the_references_constants(epsilon_hat):
    config = default.get_config()
    config.optim.epsilon_hat = epsilon_hat
    gradients = [np.array([1.0, -2.0, 1e-5]), np.array([-0.3, -2.0, 3e-5]), np.array([0.1, 1.0, 1e-5])]
    adam = optim.adam(3e-4, config)
    state, first, second = adam.init({'kernel': jnp.zeros(3)}), 0, 0
    for n, g in enumerate(gradients, start=1):
        updates, state = adam.update({'kernel': jnp.asarray(g, jnp.float32)}, state)
        first, second = 0.5 * first + 0.5 * g, 0.999 * second + 0.001 * g**2
        if epsilon_hat:  # as TensorFlow's documentation writes it
            rate = 3e-4 * np.sqrt(1 - 0.999**n) / (1 - 0.5**n)
            expected = -rate * first / (np.sqrt(second) + 1e-5)
        else:
            expected = -3e-4 * (first / (1 - 0.5**n)) / (np.sqrt(second / (1 - 0.999**n)) + 1e-5)
        np.testing.assert_allclose(updates['kernel'], expected, rtol=1e-3)
