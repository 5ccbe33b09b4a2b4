from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from artifacts_jax.models import architecture, layers
from artifacts_jax.pretraining import game


def compute_metrics(mask_logits, mask):
    """Returns the metrics of fakes with these mask logits; the real examples have other logits."""
    outputs = jnp.zeros((2 * len(mask), 2)), jnp.concatenate([jnp.full(mask.shape, 9.0), mask_logits])
    return game._compute_metrics(outputs, mask, None)


def test_mask_probabilities_are_averaged_over_kept_and_over_dropped_entries_of_fakes():
    mask = layers.spatial_mask(jax.random.split(jax.random.key(1), 4), (4, 4), 0.5)
    values = compute_metrics(jnp.where(mask == 1, 2.0, -1.0), mask)
    np.testing.assert_allclose(values['mask/on_kept'].compute(), 1 / (1 + np.exp(-2)), rtol=1e-5)
    np.testing.assert_allclose(values['mask/on_dropped'].compute(), 1 / (1 + np.exp(1)), rtol=1e-5)
    assert values['accuracy/mask'] == 1


def test_each_fake_of_a_gan_has_its_own_noise(config):
    config.artifacts.generator = 'gan'
    generator, phi, mask = architecture.make_generator(config), jnp.zeros((4, 4, 4, 8)), jnp.zeros((4, 4, 4, 1))
    variables = jax.jit(partial(generator.init, method='decode_noise'))(jax.random.key(1), phi)

    @jax.jit
    def fakes(keys):
        return game.make_fake_examples(generator, variables, phi[: len(keys)], mask[: len(keys)], keys, config)

    keys = jax.random.split(jax.random.key(0), 4)
    together = np.asarray(fakes(keys))
    assert len({fake.tobytes() for fake in together}) == 4
    np.testing.assert_allclose(fakes(keys[2:3]), together[2:3], atol=1e-5)


def test_ratios_summed_over_microbatches_equal_those_of_the_batch():
    mask = jnp.stack([jnp.ones((4, 4, 1)), jnp.zeros((4, 4, 1)).at[0].set(1)])  # 16 and 4 entries are kept
    logits = jax.random.normal(jax.random.key(0), mask.shape)
    ratios = [compute_metrics(logits[n : n + 1], mask[n : n + 1])['mask/on_kept'] for n in range(2)]
    joined = jax.tree.map(lambda a, b: (a + b) / 2, *ratios).compute()
    np.testing.assert_allclose(joined, jax.nn.sigmoid(logits)[mask == 1].mean(), rtol=1e-5)


def test_ratio_is_0_if_no_entry_is_dropped():
    assert compute_metrics(jnp.zeros((2, 4, 4, 1)), jnp.ones((2, 4, 4, 1)))['mask/on_dropped'].compute() == 0
