from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.models import fcn
from artifacts_jax.training import keys
from artifacts_jax.transfer.voc.segmentation import network, stage, task
from tests import stopping
from tests.transfer.voc.segmentation import made

pytestmark = pytest.mark.usefixtures('little')


@pytest.fixture(scope='module')
def start():
    return made.start()


def test_a_step_is_the_mean_of_the_gradients_of_images(tree, start):
    config = made.small(tree, dropout=0.0, learning_rate=0.01)
    training, key = stage.Stage('voc_segmentation/test'), keys.stage_key(0, 'test')
    before = training.init_state(key, start, config=config)
    score = {'kernel': jax.random.normal(key, (1, 1, 8, 21)), 'bias': jnp.zeros(21)}
    before = before.replace(params={**before.params, 'head': {**before.params['head'], 'score': score}})
    images, _ = task._images(config)
    batch, results = images.batch(0, 2), []
    for config.accumulate in (1, 2):
        results.append(jax.jit(partial(training.train_step, config=config))(before, batch, key))
    (after, values), (in_parts, values_in_parts) = results
    assert values['loss/class'] == pytest.approx(float(values_in_parts['loss/class']), rel=1e-5)
    for a, b in zip(stopping.leaves(after.params), stopping.leaves(in_parts.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, after.params)
    assert all(jax.tree.leaves(changed))


def test_new_layers_begin_by_what_they_see(tree, start):
    config = made.small(tree)
    training, (images, _) = stage.Stage('voc_segmentation/test'), task._images(config)
    before = training.init_state(jax.random.key(0), start, config=config)
    after = training.prepare(before, config=config, devices=made.ONE, datasets={'train': images})
    seen = stage._first_windows(config, made.ONE, before.variables, images)
    assert seen.shape == (4 * stage.PLACES, fcn.WINDOW**2 * 8)
    layer = after.params['head']['fc6']
    outputs = np.asarray(seen @ layer['kernel'].reshape(-1, 8) + layer['bias'][None])
    np.testing.assert_allclose(outputs.mean(0), 0.1, atol=1e-4)
    np.testing.assert_allclose(outputs.std(0), 1, rtol=1e-3)
    # And they see what a convolution does.
    image = images.records[0].image()[None]
    pooled = network.make(config).apply({'params': before.params}, network.prepared(image), method='pooled')
    slid = jax.lax.conv(pooled.transpose(0, 3, 1, 2), layer['kernel'].transpose(3, 2, 0, 1), (1, 1), 'VALID') + layer[
        'bias'
    ].reshape(1, -1, 1, 1)
    assert abs(float(slid.mean())) < 1
    assert not after.params['head']['score']['kernel'].any()
    config.voc_segmentation.rescale = 'none'
    assert training.prepare(before, config=config, devices=made.ONE, datasets={}) is before
