from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from artifacts_jax import config as configuration
from artifacts_jax.data import augment
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import architecture, heads
from artifacts_jax.pretraining import artifacts, losses
from artifacts_jax.training import keys
from artifacts_jax.transfer import classifier
from tests.conftest import tiny

PROTOCOLS = ('linear', 'finetune', 'reference')  # 'reference': linear, with conv5's batch norm as in the 2019 code


def settings(protocol):
    """Returns (config, stage) of a protocol, for the tiny network and five classes."""
    config = tiny()
    config.stl10.update(epochs=3, batch_size=8, hidden=16)
    if protocol == 'reference':
        protocol, config.stl10.batch_norm = 'linear', 'reference'
    return config, classifier.Stage(NAME=f'stl10/{protocol}/all', protocol=protocol, num_images=20, num_classes=5)


@pytest.fixture(scope='module')
def labelled(batch):
    return {**batch, 'label': np.arange(8, dtype=np.int32) % 5}


@pytest.fixture(scope='module')
def steps(stage_states, labelled):
    """Returns {protocol: (state before, state after, metrics)} of the first step, jitted on one device."""
    found = {}
    for protocol in PROTOCOLS:
        config, stage = settings(protocol)
        key = keys.stage_key(0, stage.NAME)
        before = jax.jit(partial(stage.init_state, config=config))(key, stage_states[artifacts].variables)
        found[protocol] = before, *jax.jit(partial(stage.train_step, config=config))(before, labelled, key)
    return found


def changed(before, after):
    """Returns the paths of the leaves that are not equal."""
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return {
        jax.tree_util.keystr(path, simple=True, separator='/') for (path, a), b in leaves if np.not_equal(a, b).any()
    }


def test_linear_trains_only_the_head(steps):
    before, after, _ = steps['linear']
    assert changed(before.variables, after.variables) == {'params/head/fc/kernel', 'params/head/fc/bias'}


def test_reference_batch_norm_also_changes_the_statistics_of_norm5(steps):
    before, after, _ = steps['reference']
    assert changed(before.variables, after.variables) == {
        'params/head/fc/kernel',
        'params/head/fc/bias',
        'batch_stats/trunk/norm5/mean',
        'batch_stats/trunk/norm5/var',
    }


def test_fine_tuning_trains_everything(steps):
    before, after, _ = steps['finetune']
    everything = jax.tree_util.tree_leaves_with_path(before.variables)
    changed_paths = changed(before.variables, after.variables)
    assert changed_paths == {jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in everything}


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_training_starts_from_the_pretrained_trunk(steps, stage_states, protocol):
    found, learned = steps[protocol][0].variables, artifacts.select_discriminator(stage_states[artifacts].variables)
    for kind in ('params', 'batch_stats'):
        jax.tree.map(np.testing.assert_array_equal, found[kind]['trunk'], learned[kind]['trunk'])


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_step_is_adam_on_cross_entropy_and_l2(steps, labelled, protocol):
    before, after, values = steps[protocol]
    config, stage = settings(protocol)
    example_keys = keys.example_keys(keys.stage_key(0, stage.NAME), 0, labelled['index'], 3)
    images = augment.training_view(config, example_keys[0], labelled['image'])
    head = heads.LinearHead(5) if stage.protocol == 'linear' else heads.FineTuneHead(5, 16)

    def loss(params):
        parts = {
            name: {'params': params.get(name, before.variables['params'][name]), 'batch_stats': stats}
            for name, stats in {'head': {}, **before.variables['batch_stats']}.items()
        }
        train = protocol != 'linear'
        (conv5, _), _ = architecture.make_trunk(config).apply(
            parts['trunk'], images, train=train, mutable=['batch_stats']
        )
        logits, _ = head.apply(
            parts['head'], conv5, train=train, dropout_keys=example_keys[1:], mutable=['batch_stats']
        )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labelled['label'][:, None], axis=1)
        return 5e-5 * losses.l2(params) - chosen.mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(before.params)
    np.testing.assert_allclose(values['loss/class'] + values['loss/l2'], value, rtol=1e-5)
    for name in grads:
        np.testing.assert_allclose(values[f'grad_norm/{name}'], optax.tree.norm(grads[name]), rtol=1e-4)
    (moments,) = jax.tree.leaves(after.opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))[:1]
    bias = ('fc', 'bias') if stage.protocol == 'linear' else ('fc3', 'bias')
    twice = 2 * grads['head'][bias[0]]['bias']  # gradients of biases are doubled
    np.testing.assert_allclose(moments.mu['head'][bias[0]]['bias'], 0.5 * twice, atol=1e-6)


def test_pmap_with_the_references_batch_norm_equals_jit_on_one(steps, stage_states, labelled):
    config, stage = settings('reference')
    before, after, values = steps['reference']
    devices = Devices('pmap')
    assert len(devices.devices) == 4
    step = devices.train_step(partial(stage.train_step, config=config))
    mapped, mapped_values = step(before, devices.put(labelled), keys.stage_key(0, stage.NAME))
    for name, value in values.items():
        np.testing.assert_allclose(mapped_values[name], value, rtol=1e-4, err_msg=name)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), mapped.batch_stats, after.batch_stats)
    for network in after.params:
        # The first update of Adam is close to the sign of the gradient: rounding decides it where gradients are tiny.
        pairs = zip(jax.tree.leaves(mapped.params[network]), jax.tree.leaves(after.params[network]))
        close = np.concatenate([np.ravel(np.abs(a - b) < 1e-5) for a, b in pairs])
        assert close.mean() > 0.99


def test_an_epoch_has_whole_batches_and_at_least_one():
    config, stage = settings('linear')
    assert stage.get_steps_and_batch_size(config) == (2 * 3, 8)
    fold, whole = (classifier.Stage(NAME='a', protocol='linear', num_images=n, num_classes=5) for n in (7, 5000))
    assert fold.get_steps_and_batch_size(config) == (3, 8)
    default = configuration.ConfigDict({'stl10': {'epochs': 400, 'batch_size': 128}})
    assert whole.get_steps_and_batch_size(default) == (39 * 400, 128)
