import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax.pretraining import history


def fakes(step):
    """Returns eight images of one colour, 100 + 10 * step + index; an empty entry of the buffer is 0."""
    colours = 100.0 + 10.0 * step + jnp.arange(8.0)
    images = jnp.broadcast_to(colours.reshape(8, 1, 1, 1), (8, 16, 16, 3))
    return images, images[:, :4, :4, :1]


def run_steps(config, steps, axis_name=None, slice_=slice(None)):
    """Runs steps on a slice of the batch; returns (the first pixels of the sampled fakes, the buffer)."""
    buffer, index, sampled_steps = history.create(config), jnp.arange(8)[slice_], []
    for step in range(steps):
        images, masks = (x[slice_] for x in fakes(step))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step), 8)[slice_]
        sampled, sampled_masks = history.sample(buffer, 4 * step, keys, index, images, masks)
        sampled_steps.append(sampled[:, 0, 0, 0])
        np.testing.assert_array_equal(sampled[:, 0, 0, 0], sampled_masks[:, 0, 0, 0])
        buffer = history.add(buffer, 4 * step, images, masks, axis_name=axis_name)
    return jnp.stack(sampled_steps), buffer


def test_half_of_the_fakes_are_sampled_from_the_buffer_and_the_oldest_are_replaced(config):
    config.artifacts.history = 8
    sampled_steps, buffer = run_steps(config, 4)
    np.testing.assert_array_equal(sampled_steps[:, ::2], [[100 + 10 * s + i for i in (0, 2, 4, 6)] for s in range(4)])
    np.testing.assert_array_equal(sampled_steps[0, 1::2], [101, 103, 105, 107])  # the buffer is still empty
    assert set(np.asarray(sampled_steps[1, 1::2])) <= {100.0, 102.0, 104.0, 106.0}
    assert set(np.asarray(sampled_steps[3, 1::2])) <= {110.0, 112.0, 114.0, 116.0, 120.0, 122.0, 124.0, 126.0}
    assert set(np.asarray(buffer.images[:, 0, 0, 0])) == {120.0, 122.0, 124.0, 126.0, 130.0, 132.0, 134.0, 136.0}


@pytest.mark.parametrize('capacity', [4, 12])
def test_the_buffer_is_filled_from_index_0_and_wraps_around(config, capacity):
    config.artifacts.history = capacity
    for steps in range(1, 5):
        _, buffer = run_steps(config, steps)
        expected = np.zeros(capacity)
        for n in range(4 * steps):  # the added fakes, in order
            expected[n % capacity] = 100 + 10 * (n // 4) + 2 * (n % 4)
        np.testing.assert_array_equal(buffer.images[:, 0, 0, 0], expected)


def test_every_entry_can_be_sampled(config):
    config.artifacts.history = 4
    sampled_steps = {
        float(x) for steps in range(2, 12) for x in run_steps(config, steps)[0][-1, 1::2] - 10 * (steps - 2)
    }
    assert sampled_steps == {100.0, 102.0, 104.0, 106.0}


def test_a_buffer_with_one_entry_returns_the_previous_fake(config):
    config.artifacts.history, buffer = 1, None
    index, keys = jnp.arange(2), jax.random.split(jax.random.key(0), 2)
    for step in range(4):
        images, masks = (x[:2] for x in fakes(step))
        buffer = history.create(config) if step == 0 else buffer
        sampled, sampled_masks = history.sample(buffer, step, keys, index, images, masks)
        before = 100 + 10 * (step - 1) if step else 101  # the buffer is empty at first
        np.testing.assert_array_equal(sampled[:, 0, 0, 0], [100 + 10 * step, before])
        np.testing.assert_array_equal(sampled_masks[:, 0, 0, 0], [100 + 10 * step, before])
        buffer = history.add(buffer, step, images, masks)


def test_each_example_is_replaced_by_its_own_sample():
    masks = jnp.arange(64.0).reshape(64, 1, 1, 1)
    buffer, fake = history.History(jnp.tile(masks, (1, 1, 1, 3)), masks), (-jnp.ones((32, 1, 1, 3)), -masks[:32])
    keys, index = jax.random.split(jax.random.key(0), 32), jnp.arange(32)
    sampled, sampled_masks = history.sample(buffer, 64, keys, index, *fake)
    np.testing.assert_array_equal(sampled[1::2, ..., :1], sampled_masks[1::2])
    assert len(set(np.ravel(sampled_masks[1::2]).tolist())) > 8  # of 16
    single, _ = history.sample(buffer, 64, keys[5:6], index[5:6], *(x[5:6] for x in fake))
    np.testing.assert_array_equal(single, sampled[5:6])


def test_replaced_fakes_get_no_gradient(config):
    config.artifacts.history = 8
    _, buffer = run_steps(config, 2)
    images, masks = fakes(2)
    keys = jax.random.split(jax.random.key(0), 8)
    gradient = jax.grad(lambda x: history.sample(buffer, 8, keys, jnp.arange(8), x, masks)[0].sum())(images)
    np.testing.assert_array_equal(gradient[:, 0, 0, 0], [1, 0] * 4)


def test_no_history_changes_nothing(config):
    assert history.create(config) is None
    images, masks = fakes(0)
    assert history.sample(None, 0, None, None, images, masks)[0] is images


def test_all_devices_have_the_same_buffer(config):
    config.artifacts.history = 8
    buffer = history.create(config)
    images, masks = (x.reshape(4, 2, *x.shape[1:]) for x in fakes(3))
    add = jax.pmap(lambda x, m: history.add(buffer, 12, x, m, axis_name='data'), 'data', out_axes=None)
    result, expected = add(images, masks), history.add(buffer, 12, *fakes(3))
    jax.tree.map(np.testing.assert_array_equal, result, expected)


def test_buffer_of_an_impossible_size_is_refused(config):
    config.artifacts.history = 6
    with pytest.raises(configuration.ConfigError, match=r'artifacts.history=6: must be 0 or a multiple .* 4'):
        configuration.check(config)
