from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from artifacts_jax.data import augment
from artifacts_jax.models import architecture, layers
from artifacts_jax.pretraining import artifacts, losses
from artifacts_jax.training import keys


@pytest.fixture
def key():
    return keys.stage_key(0, artifacts.NAME)


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


@pytest.mark.slow
@pytest.mark.parametrize('updates', ['alternate', 'simultaneous'])
def test_both_networks_learn_and_the_autoencoder_is_frozen(first_game_steps, updates):
    before, after, values = first_game_steps[updates]
    assert same(before.frozen, after.frozen)
    moved = jax.tree.map(lambda a, b: bool(np.not_equal(a, b).any()), before.params, after.params)
    assert all(jax.tree.leaves(moved)), moved
    changed = jax.tree.map(lambda a, b: bool(np.not_equal(a, b).any()), before.batch_stats, after.batch_stats)
    assert all(jax.tree.leaves(changed)), changed
    assert int(after.step) == 1
    assert all(np.isfinite(x) for x in values.values())


def plain_losses(state, batch, key, config, params, dropout=slice(2, 4)):
    """(discriminator's loss, generator's loss) of one shared pass, written as section 2 of the method reads."""
    generator, discriminator = architecture.make_generator(config), architecture.make_discriminator(config)
    example_keys = keys.example_keys(key, state.step, batch['index'], 6)
    augment_keys, mask_keys = example_keys[:2]
    x = augment.training_view(config, augment_keys, batch['image'])
    mask = layers.spatial_mask(mask_keys, architecture.mask_grid(config), config.artifacts.drop_rate)
    variables = {'params': {**state.frozen['params'], **params}, 'batch_stats': state.variables['batch_stats']}
    phi = generator.apply(variables, x, method='encode')
    real = generator.apply(variables, phi, method='decode')
    fake, _ = generator.apply(variables, phi, mask, train=True, method='corrupt', mutable=['batch_stats'])
    (outputs, _), _ = discriminator.apply(
        {'params': params['discriminator'], 'batch_stats': state.batch_stats['discriminator']},
        jnp.concatenate([real, fake]),
        train=True,
        dropout_keys=jnp.concatenate(example_keys[dropout]),
        mutable=['batch_stats'],
    )
    logits, mask_logits = outputs
    labels = jnp.repeat(jnp.array([1, 0]), len(x))
    targets = jnp.concatenate([jnp.ones_like(mask), mask])
    kept = jnp.repeat(jnp.repeat(mask, 4, 1), 4, 2)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels
    discriminator_loss = (
        cross_entropy(logits, labels).mean()
        + 0.1 * optax.sigmoid_binary_cross_entropy(mask_logits, targets).mean()
        + 5e-5 * losses.l2(params['discriminator'])
    )
    generator_loss = (
        cross_entropy(logits, 1 - labels).mean()
        + 30 * (kept * (fake - x) ** 2).sum() / (3 * kept.sum())
        + 5e-5 * losses.l2(params['repair'])
    )
    return discriminator_loss, generator_loss


def test_simultaneous_step_equals_plain_gradients(config, batch, first_game_steps, key):
    state, after, values = first_game_steps['simultaneous']

    def gradients(params):
        losses = plain_losses(state, batch, key, config, params)
        pulled = [
            jax.grad(lambda p, n=n: plain_losses(state, batch, key, config, p)[n])(params)[network]
            for n, network in enumerate(('discriminator', 'repair'))
        ]
        return losses[0], *pulled

    discriminator_loss, discriminator, repair = jax.jit(gradients)(state.params)
    for network, gradient in [('discriminator', discriminator), ('repair', repair)]:  # norms are without L2
        decay = jax.jit(jax.grad(lambda p: 5e-5 * losses.l2(p)))(state.params[network])
        norm = optax.tree.norm(jax.tree.map(np.subtract, gradient, decay))
        np.testing.assert_allclose(values[f'grad_norm/{network}'], norm, rtol=1e-4)
    adam = artifacts._make_optimiser(config)
    updates, _ = jax.jit(adam.update)({'repair': repair}, state.opt_state['repair'])
    expected = optax.apply_updates({'repair': state.params['repair']}, updates)['repair']
    # The first step of Adam is near the sign of the gradient: rounding decides where a gradient is next to nothing.
    close = jax.tree.map(lambda a, b: np.abs(np.subtract(a, b)) < 1e-5, after.params['repair'], expected)
    assert np.mean(np.concatenate([np.ravel(x) for x in jax.tree.leaves(close)])) > 0.99
    total = sum(float(values[f'loss/discriminator_{n}']) for n in ('class', 'mask', 'l2'))
    np.testing.assert_allclose(total, discriminator_loss, rtol=1e-5)


@pytest.mark.slow
def test_reference_objective_adds_the_discriminators_terms(config, batch, stage_states, key):
    config.artifacts.updates, config.artifacts.generator_objective = 'simultaneous', 'reference'
    state = stage_states[artifacts]

    @jax.jit
    def leaked(params):
        def loss(params):
            discriminator, generator = plain_losses(state, batch, key, config, params)
            return generator + discriminator - 5e-5 * losses.l2(params['discriminator'])

        return jax.value_and_grad(loss)(params)

    step = jax.jit(partial(artifacts.train_step, config=config))
    new, values = step(state, batch, key)
    loss, gradients = leaked(state.params)
    terms = ('generator_class', 'generator_pixel', 'generator_leak', 'generator_l2')
    np.testing.assert_allclose(sum(values[f'loss/{n}'] for n in terms), loss, rtol=1e-5)
    np.testing.assert_allclose(values['grad_norm/repair'], optax.tree.norm(gradients['repair']), rtol=1e-4)
    moments = new.opt_state['repair'][1].mu['repair']  # Adam's: (1 - b1) * gradient, of biases twice that
    np.testing.assert_allclose(
        moments['layers_1']['conv2']['kernel'] / 0.5,
        gradients['repair']['layers_1']['conv2']['kernel'],
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        moments['layers_1']['conv2']['bias'] / 1.0,
        gradients['repair']['layers_1']['conv2']['bias'],
        rtol=1e-4,
        atol=1e-5,
    )


def test_alternate_step_uses_the_updated_discriminator_for_the_generator(config, batch, first_game_steps, key):
    state, alternate, values = first_game_steps['alternate']
    _, simultaneous, _ = first_game_steps['simultaneous']
    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-6),
        alternate.params['discriminator'],
        simultaneous.params['discriminator'],
    )
    # The second pass has dropout keys of its own, the fifth and the sixth.
    loss = jax.jit(partial(plain_losses, state, batch, key, config, dropout=slice(4, 6)))
    l2 = 5e-5 * losses.l2(state.params['repair'])
    found = values['loss/generator_class'] + values['loss/generator_pixel']
    _, updated = loss({**state.params, 'discriminator': alternate.params['discriminator']})
    _, outdated = loss(state.params)
    np.testing.assert_allclose(found, updated - l2, rtol=1e-4)
    assert abs(found - (outdated - l2)) > 1e-3


def test_frozen_decoder_uses_its_running_averages_while_the_repair_trains(config, stage_states):
    state, generator = stage_states[artifacts], architecture.make_generator(config)
    phi, mask = jax.random.normal(jax.random.key(0), (4, 4, 4, 8)), jnp.ones((4, 4, 4, 1))

    def corrupt(variables):
        return generator.apply(variables, phi, mask, train=True, method='corrupt', mutable=['batch_stats'])

    fake, updates = jax.jit(corrupt)(state.variables)
    assert not jax.tree.all(
        jax.tree.map(jnp.array_equal, updates['batch_stats']['repair'], state.batch_stats['repair'])
    )
    for network in ('encoder', 'decoder'):
        before = state.frozen['batch_stats'][network]
        assert jax.tree.all(jax.tree.map(jnp.array_equal, updates['batch_stats'].get(network, before), before))
    shifted = jax.tree.map(lambda x: x + 1, state.frozen['batch_stats']['decoder'])
    batch_stats = {**state.variables['batch_stats'], 'decoder': shifted}
    other, _ = jax.jit(corrupt)({**state.variables, 'batch_stats': batch_stats})
    assert jnp.abs(fake - other).max() > 1e-3


def test_only_kept_pixels_count_in_the_pixel_loss(config):
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3))
    mask = layers.spatial_mask(jax.random.split(jax.random.key(1), 2), (4, 4), 0.5)
    dropped = 1 - layers.upsample_nearest(mask, (16, 16))
    outputs = (jnp.zeros((4, 2)), jnp.zeros((4, 4, 4, 1)))

    def error(fake):
        terms = losses.generator_terms(outputs, fake, images, mask, mask.mean(), config=config, axis_name=None)
        return terms['loss/generator_pixel']

    assert error(images + 5 * dropped) == 0
    np.testing.assert_allclose(error(images + 1 - dropped), 30, rtol=1e-5)


def test_pixel_loss_is_0_if_all_entries_are_dropped(config):
    outputs = (jnp.zeros((4, 2)), jnp.zeros((4, 4, 4, 1)))
    images, mask = jnp.ones((2, 16, 16, 3)), jnp.zeros((2, 4, 4, 1))
    terms = losses.generator_terms(outputs, -images, images, mask, mask.mean(), config=config, axis_name=None)
    assert terms['loss/generator_pixel'] == 0


def test_moving_average_is_updated_if_configured(stage_states, first_game_steps):
    assert stage_states[artifacts].ema is None
    before, after, _ = first_game_steps['alternate']
    # The decay of 0.9 is 1 / 10 at the first step.
    expected = jax.tree.map(lambda a, b: 0.1 * a + 0.9 * b, before.params, after.params)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), after.ema, expected)
    assert after.get_trained_variables(True)['params']['repair'] is after.ema['repair']
    assert after.get_trained_variables(False)['params']['repair'] is after.params['repair']
