import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.models import alexnet, layers
from artifacts_jax.models.discriminator import Trunk
from artifacts_jax.transfer import rescaling

MODEL = alexnet.AlexNet(
    Trunk((8, 8, 8, 8, 8), (3, 3, 3, 3, 3), conv1_stride=1, normalise=False), alexnet.Connected(5, hidden=12)
)
IMAGES = jax.random.uniform(jax.random.key(1), (24, 16, 16, 3), minval=-1)


@pytest.fixture(scope='module')
def params():
    initial = jax.jit(MODEL.init)(jax.random.key(0), IMAGES)['params']
    uneven = dict(zip(rescaling.LAYERS, (0.01, 1.0, 0.3, 3.0, 9.0)))
    trunk = {name: jax.tree.map(lambda x, f=uneven[name]: f * x, tree) for name, tree in initial['trunk'].items()}
    return {**initial, 'trunk': trunk}


@pytest.fixture(scope='module', autouse=True)
def without_response_norm():
    """Removes local response normalisation: it is the only layer that does not scale with its inputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layers, 'local_response_norm', lambda x: x)
        yield
    jax.clear_caches()


def before_relu(params):
    return rescaling._compute_outputs(params, IMAGES, model=MODEL)


def test_new_layers_have_units_of_deviation_1(params):
    new = rescaling.initialise_head(jax.random.key(2), params, MODEL, IMAGES)
    outputs = before_relu(new)
    for name in ('fc6', 'fc7'):
        np.testing.assert_allclose(outputs[name].mean(0), 0.1, atol=1e-3)
        np.testing.assert_allclose(outputs[name].std(0), 1, atol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, new['trunk'], params['trunk'])
    jax.tree.map(np.testing.assert_array_equal, new['head']['fc8'], params['head']['fc8'])


def spread(params):
    ratios = rescaling._compute_ratios(jax.random.key(9), params, IMAGES, model=MODEL)
    logs = np.log([float(ratios[name]) for name in rescaling.LAYERS])
    return logs.max() - logs.min()


@pytest.mark.slow
def test_balanced_layers_change_at_the_same_rate_and_compute_nearly_the_same(params):
    start = rescaling.initialise_head(jax.random.key(2), params, MODEL, IMAGES)
    balanced = rescaling.balance(jax.random.key(3), start, MODEL, IMAGES)
    assert spread(start) > 4
    assert spread(balanced) < 0.7
    before, after = (before_relu(p)['fc8'] for p in (start, balanced))
    correlation = np.corrcoef(np.ravel(before), np.ravel(after))[0, 1]
    assert correlation > 0.98
    assert jax.tree.structure(balanced) == jax.tree.structure(params)


def test_gradients_are_of_weights_and_random_at_the_outputs(params):
    ratios = rescaling._compute_ratios(jax.random.key(4), params, IMAGES, model=MODEL)
    output_gradient = jax.random.normal(jax.random.key(4), (24, 5))
    outputs = jnp.maximum(before_relu(params)['fc7'], 0)
    kernel = params['head']['fc8']['kernel']
    gradient = outputs.T @ output_gradient
    expected = jnp.sqrt(jnp.square(gradient).mean() / jnp.square(kernel).mean())
    np.testing.assert_allclose(ratios['fc8'], expected, rtol=1e-4)


@pytest.mark.slow
def test_new_layers_are_normalised_for_their_inputs():
    inputs = jnp.asarray(np.random.default_rng(0).gamma(2.0, 3.0, (200, 20)), jnp.float32)
    head = {'fc6': {'kernel': jnp.zeros((2, 2, 5, 7))}, 'fc7': {'kernel': jnp.zeros((7, 7))}, 'score': 3}
    found = rescaling.initialise_connected(jax.random.key(0), head, inputs, 7)
    assert found['score'] == 3
    x = inputs
    for name, shape in (('fc6', (2, 2, 5, 7)), ('fc7', (7, 7))):
        assert found[name]['kernel'].shape == shape
        x = np.asarray(x @ found[name]['kernel'].reshape(-1, 7) + found[name]['bias'][None])
        np.testing.assert_allclose(x.mean(0), 0.1, atol=1e-3)
        np.testing.assert_allclose(x.std(0), 1, atol=1e-3)
        x = np.maximum(x, 0)
    without_inputs = rescaling.initialise_connected(jax.random.key(0), head, 0 * inputs, 7)
    np.testing.assert_array_equal(without_inputs['fc6']['bias'], np.float32(0.1))
