import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax.pretraining import history


def fakes(step):
    """Eight images of one colour, none of them 0, as an empty place is: 100 + 10 * step + the example's index."""
    colours = 100.0 + 10.0 * step + jnp.arange(8.0)
    images = jnp.broadcast_to(colours.reshape(8, 1, 1, 1), (8, 16, 16, 3))
    return images, images[:, :4, :4, :1]


def play(config, steps, axis_name=None, part=slice(None)):
    """Runs steps of the buffer on a part of the batch; returns what the discriminator saw, and the buffer."""
    buffer, index, seen = history.create(config), jnp.arange(8)[part], []
    for step in range(steps):
        images, masks = (x[part] for x in fakes(step))
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), step), 8)[part]
        shown, shown_masks = history.sample(buffer, 4 * step, keys, index, images, masks)
        seen.append(shown[:, 0, 0, 0])
        np.testing.assert_array_equal(shown[:, 0, 0, 0], shown_masks[:, 0, 0, 0])
        buffer = history.add(buffer, 4 * step, images, masks, axis_name=axis_name)
    return jnp.stack(seen), buffer


def test_half_of_the_fakes_are_earlier_ones_and_the_oldest_leave(config):
    config.artifacts.history = 8
    seen, buffer = play(config, 4)
    np.testing.assert_array_equal(seen[:, ::2], [[100 + 10 * s + i for i in (0, 2, 4, 6)] for s in range(4)])
    np.testing.assert_array_equal(seen[0, 1::2], [101, 103, 105, 107])  # nothing is remembered yet
    assert set(np.asarray(seen[1, 1::2])) <= {100.0, 102.0, 104.0, 106.0}
    assert set(np.asarray(seen[3, 1::2])) <= {110.0, 112.0, 114.0, 116.0, 120.0, 122.0, 124.0, 126.0}
    assert set(np.asarray(buffer.images[:, 0, 0, 0])) == {120.0, 122.0, 124.0, 126.0, 130.0, 132.0, 134.0, 136.0}


@pytest.mark.parametrize('places', [4, 12])
def test_the_buffer_is_filled_from_the_front_and_begins_again_there(config, places):
    config.artifacts.history = places
    for steps in range(1, 5):
        _, buffer = play(config, steps)
        expected = np.zeros(places)
        for n in range(4 * steps):  # the fakes that have entered, in their order
            expected[n % places] = 100 + 10 * (n // 4) + 2 * (n % 4)
        np.testing.assert_array_equal(buffer.images[:, 0, 0, 0], expected)


def test_every_place_is_recalled(config):
    config.artifacts.history = 4
    seen = {float(x) for steps in range(2, 12) for x in play(config, steps)[0][-1, 1::2] - 10 * (steps - 2)}
    assert seen == {100.0, 102.0, 104.0, 106.0}


def test_a_buffer_of_one_place_gives_back_the_fake_before(config):
    config.artifacts.history, buffer = 1, None
    index, keys = jnp.arange(2), jax.random.split(jax.random.key(0), 2)
    for step in range(4):
        images, masks = (x[:2] for x in fakes(step))
        buffer = history.create(config) if step == 0 else buffer
        shown, shown_masks = history.sample(buffer, step, keys, index, images, masks)
        before = 100 + 10 * (step - 1) if step else 101  # nothing is remembered at first
        np.testing.assert_array_equal(shown[:, 0, 0, 0], [100 + 10 * step, before])
        np.testing.assert_array_equal(shown_masks[:, 0, 0, 0], [100 + 10 * step, before])
        buffer = history.add(buffer, step, images, masks)


def test_examples_of_a_batch_are_replaced_by_fakes_of_their_own():
    masks = jnp.arange(64.0).reshape(64, 1, 1, 1)
    buffer, fake = history.History(jnp.tile(masks, (1, 1, 1, 3)), masks), (-jnp.ones((32, 1, 1, 3)), -masks[:32])
    keys, index = jax.random.split(jax.random.key(0), 32), jnp.arange(32)
    shown, shown_masks = history.sample(buffer, 64, keys, index, *fake)
    np.testing.assert_array_equal(shown[1::2, ..., :1], shown_masks[1::2])
    assert len(set(np.ravel(shown_masks[1::2]).tolist())) > 8  # of 16
    alone, _ = history.sample(buffer, 64, keys[5:6], index[5:6], *(x[5:6] for x in fake))
    np.testing.assert_array_equal(alone, shown[5:6])


def test_no_gradient_reaches_what_was_replaced(config):
    config.artifacts.history = 8
    _, buffer = play(config, 2)
    images, masks = fakes(2)
    keys = jax.random.split(jax.random.key(0), 8)
    gradient = jax.grad(lambda x: history.sample(buffer, 8, keys, jnp.arange(8), x, masks)[0].sum())(images)
    np.testing.assert_array_equal(gradient[:, 0, 0, 0], [1, 0] * 4)


def test_no_history_changes_nothing(config):
    assert history.create(config) is None
    images, masks = fakes(0)
    assert history.sample(None, 0, None, None, images, masks)[0] is images


def test_devices_keep_one_buffer(config):
    config.artifacts.history = 8
    buffer = history.create(config)
    images, masks = (x.reshape(4, 2, *x.shape[1:]) for x in fakes(3))
    remember = jax.pmap(lambda x, m: history.add(buffer, 12, x, m, axis_name='data'), 'data', out_axes=None)
    found, expected = remember(images, masks), history.add(buffer, 12, *fakes(3))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_buffer_of_an_impossible_size_is_refused(config):
    config.artifacts.history = 6
    with pytest.raises(configuration.ConfigError, match=r'artifacts.history=6: must be 0 or a multiple .* 4'):
        configuration.check(config)
