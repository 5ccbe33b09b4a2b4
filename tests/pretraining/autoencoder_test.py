from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.data import augment
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import autoencoder, losses
from artifacts_jax.training import keys
from tests.conftest import tiny


@pytest.fixture(scope='module')
def step():
    config = tiny()
    config.autoencoder.learning_rate = 1e-2
    return jax.jit(partial(autoencoder.train_step, config=config))


def test_step_lowers_the_loss_and_moves_every_weight(step, batch, stage_states):
    before = stage_states[autoencoder]
    state, values = before, []
    for _ in range(20):
        # The same key and step: the same views, so that losses can be compared.
        state, metrics = step(state.replace(step=0 * state.step), batch, keys.stage_key(0, 'autoencoder'))
        values.append(float(metrics['loss/pixel']))
    assert values[-1] < 0.9 * values[0]
    moved = jax.tree.map(lambda a, b: bool(np.not_equal(a, b).any()), before.params, state.params)
    assert all(jax.tree.leaves(moved))


def test_loss_terms_are_those_of_the_method(config, step, batch, stage_states):
    state, key = stage_states[autoencoder], keys.stage_key(0, 'autoencoder')
    _, metrics = step(state, batch, key)
    (augment_keys,) = keys.example_keys(key, 0, batch['index'], 1)
    images = np.asarray(augment.training_view(config, augment_keys, batch['image']))
    reconstruct = partial(
        architecture.make_generator(config).apply, train=True, method='reconstruct', mutable=['batch_stats']
    )
    decoded, _ = jax.jit(reconstruct)(state.variables, images)
    np.testing.assert_allclose(metrics['loss/pixel'], 30 * np.mean((np.asarray(decoded) - images) ** 2), rtol=1e-5)
    squares = sum(
        np.sum(np.square(x, dtype=np.float64))
        for path, x in jax.tree_util.tree_leaves_with_path(state.params)
        if path[-1].key == 'kernel' or [key.key for key in path[-2:]] == ['layer3', 'bias']  # the decoder's last
    )
    np.testing.assert_allclose(metrics['loss/l2'], 5e-5 * 0.5 * squares, rtol=1e-5)


def test_running_averages_move_by_their_decay(config, step, batch, stage_states):
    before = stage_states[autoencoder]
    after, _ = step(before, batch, keys.stage_key(0, 'autoencoder'))
    mean = after.batch_stats['encoder']['layer1']['norm']['mean']
    (augment_keys,) = keys.example_keys(keys.stage_key(0, 'autoencoder'), 0, batch['index'], 1)
    images = augment.training_view(config, augment_keys, batch['image'])
    kernel = before.params['encoder']['layer1']['conv']['kernel']
    x = jax.lax.conv_general_dilated(images, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))
    np.testing.assert_allclose(mean, 0.025 * x.mean(axis=(0, 1, 2)), atol=1e-6)


def test_l2_counts_weights_and_biases_but_never_batch_norm():
    params = {
        'layer1': {
            'conv': {'kernel': jnp.full((2,), 3.0), 'bias': jnp.full((1,), 2.0)},
            'norm': {'scale': jnp.ones(4), 'bias': jnp.ones(4)},
        }
    }
    assert losses.l2(params) == 9.0
    assert losses.l2(params, biases=True) == 11.0
