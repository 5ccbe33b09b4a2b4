import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.configs import variants
from artifacts_jax.data import augment
from artifacts_jax.devices.parallel import Devices, accumulate
from artifacts_jax.models import architecture, layers
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import keys


def test_masks_dropout_and_augmentation_are_the_same_bit_for_bit(config, batch):
    def draw(key, batch):
        augment_keys, mask_keys, dropout_keys = keys.example_keys(key, 3, batch['index'], 3)
        return {
            'images': augment.training_view(config, augment_keys, batch['image']),
            'masks': layers.spatial_mask(mask_keys, architecture.mask_grid(config), 0.7),
            'dropout': layers.dropout(dropout_keys, jnp.ones((len(batch['index']), 32)), 0.5),
        }

    expected, *others = (
        Devices(mapping, jax.devices()[:count]).per_example(draw)(keys.stage_key(0, artifacts.NAME), batch)
        for mapping, count in itertools.product(('jit', 'pmap'), [n for n in (1, 2, 4, 8) if n <= len(jax.devices())])
    )
    assert 0.4 < (expected['dropout'] == 0).mean() < 0.6
    assert len(others) >= 5
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, other, expected)


def after_steps(stage, config, batch, state, mapping, count):
    devices = Devices(mapping, jax.devices()[:count])
    state = jax.device_put(jax.tree.map(np.asarray, state), devices.replicated)
    step = devices.train_step(partial(stage.train_step, config=config))
    for _ in range(2):
        state, values = step(state, devices.put(batch), keys.stage_key(0, stage.NAME))
    return jax.tree.map(np.asarray, (state.params, state.batch_stats)), {n: float(x) for n, x in values.items()}


@pytest.mark.parametrize('stage', [autoencoder, pytest.param(artifacts, marks=pytest.mark.slow)])
def test_neither_mapping_nor_device_count_changes_the_result(config, batch, stage_states, stage):
    compare(config, batch, stage_states[stage], stage)


@pytest.mark.nightly
@pytest.mark.parametrize('names', ['reference,history', 'gan', 'twice,real_input'])
def test_variants_do_not_depend_on_them_either(config, batch, stage_states, names):
    variants.apply(config, names)
    config.artifacts.history = min(config.artifacts.history, 2 * config.batch_size)
    base = stage_states[autoencoder].variables
    state = jax.jit(partial(artifacts.init_state, config=config))(jax.random.key(0), base)
    compare(config, batch, state, artifacts)


def compare(config, batch, state, stage):
    # With a coarse epsilon, rounding errors in tiny gradients do not become whole steps of Adam.
    config.optim.epsilon = 1e-2
    expected, expected_values = after_steps(stage, config, batch, state, 'jit', 1)
    for mapping, count in (('jit', 4), ('pmap', 4)):
        variables, values = after_steps(stage, config, batch, state, mapping, count)
        jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5, rtol=2e-3), variables, expected)
        assert values == pytest.approx(expected_values, rel=2e-3, abs=1e-5)


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])  # unrolled, and in a loop
def test_accumulated_means_are_those_of_the_whole_batch(backend, monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: backend)
    loop, loops = jax.lax.fori_loop, []
    monkeypatch.setattr(jax.lax, 'fori_loop', lambda *arguments: loops.append(1) or loop(*arguments))
    batch = {
        'x': np.arange(12, dtype=np.float32).reshape(6, 2),
        'keys': jax.random.split(jax.random.key(0), 6),
        'no': None,
    }

    def gradient(batch):
        noise = jax.vmap(jax.random.normal)(batch['keys'])
        return jax.grad(lambda w: jnp.square(noise[:, None] + batch['x'] @ w).mean())(jnp.ones((2, 3))), len(batch['x'])

    whole, size = gradient(batch)
    for count in (1, 2, 3):
        found, part = jax.jit(partial(accumulate, gradient, count))(batch)
        np.testing.assert_allclose(found, whole, rtol=1e-5)
        assert part == size / count
    assert bool(loops) == (backend == 'gpu')


@pytest.mark.parametrize(
    ('stage', 'updates'),
    [
        pytest.param(autoencoder, '', marks=pytest.mark.nightly),
        pytest.param(artifacts, 'simultaneous', marks=pytest.mark.nightly),
        pytest.param(artifacts, 'alternate', marks=pytest.mark.nightly),
    ],
)
def test_accumulation_equals_the_large_batch_where_statistics_do(config, batch, stage_states, stage, updates):
    config.optim.epsilon, config.artifacts.updates = 1e-2, updates or config.artifacts.updates
    twice = {name: np.repeat(x[:4], 2, axis=0) for name, x in batch.items()}  # so that both parts are the same
    expected, expected_values = after_steps(stage, config, twice, stage_states[stage], 'jit', 1)
    config.accumulate = 2
    for mapping, count in (('jit', 1), ('pmap', 4)):
        (params, stats), values = after_steps(stage, config, twice, stage_states[stage], mapping, count)
        jax.tree.map(partial(np.testing.assert_allclose, atol=2e-5, rtol=2e-3), params, expected[0])
        # The unbiased variance of fewer values is a little larger.
        jax.tree.map(partial(np.testing.assert_allclose, atol=2e-3, rtol=5e-3), stats, expected[1])
        assert values == pytest.approx(expected_values, rel=2e-3, abs=1e-5)


@pytest.mark.slow
def test_accumulation_takes_the_mean_over_the_parts(config, batch, stage_states):
    def moments(batch):
        state, _ = jax.jit(partial(autoencoder.train_step, config=config))(
            stage_states[autoencoder], batch, keys.stage_key(0, autoencoder.NAME)
        )
        return state.opt_state['decoder+encoder'][1].mu, state.batch_stats

    parts = [moments({name: x[j::2] for name, x in batch.items()}) for j in range(2)]
    config.accumulate = 2
    expected = jax.tree.map(lambda a, b: (a + b) / 2, *parts)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), moments(batch), expected)


@pytest.mark.parametrize('mapping', ['jit', 'pmap'])
def test_per_example_pads_and_keeps_the_order(mapping):
    devices = Devices(mapping)
    batch = {'x': np.arange(6, dtype=np.float32)}
    doubled = devices.per_example(lambda scale, batch: {'y': scale * batch['x']})(2.0, batch)
    np.testing.assert_array_equal(doubled['y'], 2 * batch['x'])
    some = devices.per_example(lambda scale, batch: batch['x'])(1.0, {**batch, 'valid': batch['x'] != 2})
    np.testing.assert_array_equal(some, [0, 1, 3, 4, 5])


def test_batch_that_does_not_divide_names_the_nearest():
    with pytest.raises(ValueError, match='batch_size=9 is not divisible by the 4 devices; use 8'):
        Devices('jit').check_batch('batch_size', 9)
    with pytest.raises(ValueError, match='4 devices times accumulate=3; use 12'):
        Devices('jit').check_batch('batch_size', 8, 3)
