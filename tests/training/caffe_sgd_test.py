import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from artifacts_jax.training import caffe_sgd

STEPS = 12
START = {'a': {'kernel': np.array([[1.0, -2.0], [0.5, 3.0]]), 'bias': np.array([0.3, -0.7])}}
GRADIENTS = np.random.default_rng(0).normal(size=(STEPS, 6))
DROPS = optax.piecewise_constant_schedule(0.1, {4: 0.1, 8: 0.1})


def tree(values):
    return {'a': {'kernel': jnp.asarray(values[:4].reshape(2, 2)), 'bias': jnp.asarray(values[4:])}}


def run(optimiser):
    params = jax.tree.map(jnp.asarray, START)
    state = optimiser.init(params)
    for gradient in GRADIENTS:
        updates, state = optimiser.update(tree(gradient), state, params)
        params = optax.apply_updates(params, updates)
    return np.concatenate([params['a']['kernel'].ravel(), params['a']['bias']])


@pytest.mark.parametrize('form', caffe_sgd.FORMS)
def test_updates_equal_a_slow_loop_of_numbers(form):
    rates = [0.1] * 4 + [0.01] * 4 + [0.001] * 4
    decays, multipliers, factors = [0.2] * 4 + [0.0] * 2, [1.0] * 4 + [2.0] * 2, [1, 1, 0.5, 0.5, 1, 0.5]
    w, v = np.concatenate([x.ravel() for x in (START['a']['kernel'], START['a']['bias'])]).tolist(), [0.0] * 6
    for rate, gradient in zip(rates, GRADIENTS):
        norm = sum(g * g for g in gradient) ** 0.5
        for n in range(6):
            g = gradient[n] * min(1, 1.5 / norm) + decays[n] * w[n]
            local = rate * multipliers[n] * factors[n]
            if form == 'caffe':
                v[n] = 0.9 * v[n] + local * g
                w[n] -= v[n]
            else:
                v[n] = 0.9 * v[n] + g
                w[n] -= local * v[n]
    optimiser = caffe_sgd.caffe_sgd(
        DROPS,
        form=form,
        decay=lambda path: 0.2 if path[-1].key == 'kernel' else 0.0,
        multiplier=lambda path: 2.0 if path[-1].key == 'bias' else 1.0,
        factors=(1.0, 0.5),
        clip=1.5,
    )
    np.testing.assert_allclose(run(optimiser), w, rtol=1e-5)


def test_torchs_form_is_optaxs_and_caffes_is_not_after_a_drop():
    optaxs = run(optax.sgd(DROPS, momentum=0.9))
    np.testing.assert_allclose(run(caffe_sgd.caffe_sgd(DROPS, form='torch')), optaxs, rtol=1e-5)
    assert np.abs(run(caffe_sgd.caffe_sgd(DROPS, form='caffe')) - optaxs).max() > 1e-2
    steady = optax.constant_schedule(0.1)
    np.testing.assert_allclose(*(run(caffe_sgd.caffe_sgd(steady, form=form)) for form in caffe_sgd.FORMS), rtol=1e-4)
