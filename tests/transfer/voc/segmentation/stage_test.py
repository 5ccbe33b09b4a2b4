from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.configs import default
from artifacts_jax.models import fcn
from artifacts_jax.models.discriminator import scale_pixels
from artifacts_jax.training import keys
from artifacts_jax.transfer.voc.segmentation import segmenter, stage
from tests import stopping
from tests.transfer.voc.segmentation import made

pytestmark = pytest.mark.usefixtures('little')


@pytest.fixture(scope='module')
def start():
    return made.start()


@pytest.mark.slow
def test_accumulated_microbatches_equal_one_batch(tree, start):
    config = made.small(tree, dropout=0.0, learning_rate=0.01)
    training, key = stage.Stage(NAME='voc_segmentation/test'), keys.stage_key(0, 'test')
    before = training.init_state(key, start, config=config)
    score = {'kernel': jax.random.normal(key, (1, 1, 8, 21)), 'bias': jnp.zeros(21)}
    before = before.replace(params={**before.params, 'head': {**before.params['head'], 'score': score}})
    images, _ = made.images(config)
    batch, results = images.batch(0, 2), []
    for config.accumulate in (1, 2):
        results.append(jax.jit(partial(training.train_step, config=config))(before, batch, key))
    (after, values), (after_accumulated, accumulated_values) = results
    assert values['loss/class'] == pytest.approx(float(accumulated_values['loss/class']), rel=1e-5)
    for a, b in zip(stopping.leaves(after.params), stopping.leaves(after_accumulated.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    changed = jax.tree.map(lambda a, b: bool(np.not_equal(a, b).any()), before.params, after.params)
    assert all(jax.tree.leaves(changed))


@pytest.mark.slow
def test_new_layers_are_initialised_from_data(tree, start):
    config = made.small(tree)
    training, (images, _) = stage.Stage(NAME='voc_segmentation/test'), made.images(config)
    before = training.init_state(jax.random.key(0), start, config=config)
    after = training.initialise_from_data(before, config=config, devices=made.ONE, datasets={'train': images})
    windows = stage._pool_first_windows(config, made.ONE, before.variables, images)
    assert windows.shape == (4 * stage.WINDOWS_PER_IMAGE, fcn.WINDOW**2 * 8)
    layer = after.params['head']['fc6']
    outputs = np.asarray(windows @ layer['kernel'].reshape(-1, 8) + layer['bias'][None])
    np.testing.assert_allclose(outputs.mean(0), 0.1, atol=1e-4)
    np.testing.assert_allclose(outputs.std(0), 1, rtol=1e-3)
    # The sampled windows are those that the convolution fc6 sees.
    image = images.records[0].read_image()[None]
    pooled = segmenter.make_network(config).apply({'params': before.params}, scale_pixels(image), method='pool')
    convolved = jax.lax.conv(
        pooled.transpose(0, 3, 1, 2), layer['kernel'].transpose(3, 2, 0, 1), (1, 1), 'VALID'
    ) + layer['bias'].reshape(1, -1, 1, 1)
    assert abs(float(convolved.mean())) < 1
    assert not after.params['head']['score']['kernel'].any()
    config.voc_segmentation.rescale = 'none'
    assert training.initialise_from_data(before, config=config, devices=made.ONE, datasets={'train': None}) is before


@pytest.mark.parametrize(
    ('preset', 'bias', 'rates'),
    [('fcn', 1 + 0.0005 * 2, (1, 1, 1, 1)), ('zhang', 2, (1, 0.1, 0.1, 0.01))],
)
def test_the_optimiser_has_the_preset_rules_of_biases_and_drops(preset, bias, rates):
    config = default.get_config()
    config.voc_segmentation.update(preset=preset, steps=150)
    optimiser = stage.Stage(NAME='a').make_optimiser(config)
    layer = {'kernel': jnp.full(1, 2.0), 'bias': jnp.full(1, 2.0)}
    params = {'head': {'fc7': layer, 'score': layer}, 'trunk': {'conv1': {'group0': layer}}}
    ones = {'head': {'fc7': layer, 'score': layer}, 'trunk': {'conv1': {'group0': layer}}}
    ones = {network: {name: _ones(x) for name, x in tree.items()} for network, tree in ones.items()}
    state = optimiser.init(params)
    updates, _ = optimiser.update(ones, state, params)
    found = {name: float(x[0]) / -1e-4 for name, x in _flat(updates).items()}
    weight = 1 + 0.0005 * 2
    expected = {'head.fc7.kernel': weight, 'head.fc7.bias': bias, 'head.score.kernel': weight, 'head.score.bias': 2}
    expected |= {'trunk.conv1.group0.kernel': weight, 'trunk.conv1.group0.bias': bias}
    assert found == pytest.approx(expected, rel=1e-5)
    for step, rate in zip((0, 50, 99, 100), rates):
        updates, _ = optimiser.update(ones, state._replace(count=np.int32(step)), params)
        assert float(updates['head']['score']['bias'][0]) == pytest.approx(-2e-4 * rate)


def _ones(tree):
    return {name: _ones(x) if isinstance(x, dict) else jnp.ones(1) for name, x in tree.items()}


def _flat(tree, prefix=''):
    found = {}
    for name, x in tree.items():
        found |= _flat(x, f'{prefix}{name}.') if isinstance(x, dict) else {f'{prefix}{name}': x}
    return found
