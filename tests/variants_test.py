import importlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax.configs import stl10, study, variants
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import artifacts, game, history
from artifacts_jax.training import keys


@pytest.mark.slow
@pytest.mark.parametrize('name', variants.VARIANTS)
def test_every_variant_suits_every_configuration(name):
    for module in ('default', 'demo', 'cifar10', 'stl10', 'imagenet', 'study'):
        get_config = importlib.import_module(f'configs.{module}').get_config
        configuration.check(get_config(name))
        changed = {
            key
            for key, value in configuration.flatten(get_config(name).to_dict()).items()
            if value != configuration.get_value(get_config(), key)
        }
        assert changed <= set(variants.VARIANTS[name].overrides)
    assert variants.VARIANTS[name].why


def test_variants_join_and_the_later_wins():
    config = stl10.get_config('reference,drop_rate_0.5,alternate')
    assert config.model.upsampling == 'legacy'
    assert config.artifacts.drop_rate == 0.5
    assert config.artifacts.updates == 'alternate'


def test_unknown_variant_names_the_nearest():
    with pytest.raises(configuration.ConfigError, match="no variant 'no_repiar'; the nearest is 'no_repair'"):
        study.get_config('no_repiar')


def initial(config):
    """(generator, its variables: those of the artifacts stage with a new autoencoder's)."""
    generator, size = architecture.make_generator(config), config.model.image_size

    def init(key):
        state = artifacts.init_state(key, None, config=config)
        base = generator.init(key, jnp.zeros((1, size, size, 3)), method='reconstruct')
        return {kind: {**base[kind], **state.variables[kind]} for kind in base}

    return generator, partial(init, jax.random.key(0))


@pytest.mark.parametrize(('depth', 'names'), [(-1, 3), (1, 1), (0, 0)])
def test_repair_can_stand_before_some_layers_or_none(config, depth, names):
    config.artifacts.repair_layers = depth
    _, init = initial(config)
    assert len(jax.eval_shape(init)['params']['repair']) == names


@pytest.mark.parametrize(('feed', 'channels'), [(True, 9), (False, 8)])
def test_repair_sees_the_mask_only_if_fed(config, feed, channels):
    config.artifacts.feed_mask = feed
    _, init = initial(config)
    first = jax.eval_shape(init)['params']['repair']['layers_0']
    assert first['conv1']['conv']['kernel'].shape == (3, 3, channels, 8)


@pytest.mark.nightly
def test_twice_corrupts_what_came_out_of_the_first_round(config):
    config.artifacts.rounds, config.artifacts.gated = 2, False
    generator, init = initial(config)
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1)
    mask = jax.random.bernoulli(jax.random.key(3), 0.5, (2, 4, 4, 1)).astype(jnp.float32)

    @jax.jit
    def decodings():
        apply = partial(generator.apply, init())
        first = apply(apply(images, method='encode'), mask, method='corrupt')
        second = apply(apply(first, method='encode'), mask, method='corrupt')
        twice = apply(apply(images, method='encode'), mask, method='fake')
        kept = apply(apply(images, method='encode'), jnp.ones_like(mask), method='corrupt')
        return first, second, twice, kept, apply(images, method='reconstruct')

    first, second, twice, kept, real = decodings()
    np.testing.assert_allclose(twice, second, atol=1e-6)
    assert jnp.abs(first - second).max() > 1e-3
    assert jnp.abs(kept - real).max() > 1e-3  # not gated, the repair changes what was never damaged


@pytest.mark.slow
@pytest.mark.parametrize(
    ('names', 'network'),
    [
        ('repair_first,mask_not_fed,repair_ungated,twice,real_input,encoder_3x3', 'repair'),
        pytest.param('gan,history,alternate', 'gan', marks=pytest.mark.nightly),
        pytest.param('no_repair,generator_reference', 'repair', marks=pytest.mark.nightly),
    ],
)
def test_variants_train_what_they_should(config, batch, names, network):
    variants.apply(config, names)
    config.artifacts.history = min(config.artifacts.history, 2 * config.batch_size)

    @jax.jit
    def first_step():
        _, init = initial(config)
        frozen = {kind: {name: tree[name] for name in ('encoder', 'decoder')} for kind, tree in init().items()}
        state = artifacts.init_state(jax.random.key(0), frozen, config=config)
        return state, *artifacts.train_step(state, batch, keys.stage_key(0, artifacts.NAME), config=config)

    state, new, values = first_step()
    moved = jax.tree.map(lambda a, b: bool(np.not_equal(a, b).any()), state.params, new.params)
    if network == 'gan':
        assert not moved['discriminator'].pop('mask')['bias']  # has no loss
    assert all(jax.tree.leaves(moved))
    assert set(new.params) == {'discriminator', network}
    assert bool(jax.tree.leaves(new.params[network])) == ('no_repair' not in names)
    assert all(np.isfinite(x) for x in values.values())
    if 'encoder_3x3' in names:
        assert new.frozen['params']['encoder']['layer2']['conv']['kernel'].shape[:2] == (3, 3)
    if 'history' in names:
        assert (jnp.abs(new.history.images).max(axis=(1, 2, 3)) > 0).sum() == config.batch_size / 2
        assert (new.history.masks == 0).all()  # a GAN's masks keep nothing


@pytest.mark.nightly
def test_history_is_for_the_discriminator_alone(config, batch):
    config.artifacts.updates, config.model.dropout = 'simultaneous', 0.0  # the generator's pass has other dropout
    _, init = initial(config)
    variables, values = jax.jit(init)(), {}
    for places in (0, 8):
        config.artifacts.history = places
        state = artifacts.create_state(variables, config=config)
        state = state.replace(step=state.step + 5)
        if places:  # earlier fakes are white, with nothing kept
            state = state.replace(history=history.History(jnp.ones((8, 16, 16, 3)), jnp.zeros((8, 4, 4, 1))))
        step = jax.jit(partial(artifacts.train_step, config=config))
        _, values[places] = step(state, batch, keys.stage_key(0, artifacts.NAME))
    for name in ('loss/generator_class', 'loss/generator_pixel', 'grad_norm/repair'):
        np.testing.assert_allclose(values[0][name], values[8][name], rtol=1e-4)
    for name in ('loss/discriminator_class', 'loss/discriminator_mask'):
        assert abs(values[0][name] - values[8][name]) > 1e-4


def test_real_examples_may_be_the_input(config):
    images = jnp.ones((1, 16, 16, 3))
    config.artifacts.real = 'input'
    generator, phi = architecture.make_generator(config), jnp.zeros((1, 4, 4, 8))
    assert game.make_real_examples(generator, {}, images, phi, config) is images


def test_a_gan_without_the_rest_of_its_variant_is_refused(config):
    config.artifacts.generator = 'gan'
    with pytest.raises(configuration.ConfigError, match=r'drop_rate=0.7, .*pixel_weight=30.0, .* the variant gan'):
        configuration.check(config)
