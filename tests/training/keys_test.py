import jax
import numpy as np

from artifacts_jax.training import keys


def bits(key):
    return np.asarray(jax.random.key_data(key))


def test_keys_depend_on_seed_stage_step_example_and_purpose():
    index = np.arange(4)
    base = keys.example_keys(keys.stage_key(0, 'artifacts'), 3, index, 2)
    others = (
        keys.example_keys(keys.stage_key(1, 'artifacts'), 3, index, 2),
        keys.example_keys(keys.stage_key(0, 'autoencoder'), 3, index, 2),
        keys.example_keys(keys.stage_key(0, 'artifacts'), 4, index, 2),
    )
    rows = np.concatenate([bits(k) for group in (base, *others) for k in group])
    assert len(np.unique(rows, axis=0)) == len(rows) == 32


def test_an_examples_keys_do_not_depend_on_the_batch_around_it():
    key = keys.stage_key(0, 'artifacts')
    whole = keys.example_keys(key, 3, np.arange(8), 2)
    part = keys.example_keys(key, 3, np.arange(4, 6), 2)
    for a, b in zip(whole, part):
        np.testing.assert_array_equal(bits(a)[4:6], bits(b))
