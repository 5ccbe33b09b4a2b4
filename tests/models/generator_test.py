from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from artifacts_jax.models import architecture
from artifacts_jax.models import layers as blocks
from artifacts_jax.models.generator import RepairLayer


def test_repair_layer_changes_only_dropped_positions():
    h = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    mask = blocks.spatial_mask(jax.random.split(jax.random.key(1), 2), (6, 6), 0.5)
    repair = RepairLayer()
    variables = repair.init(jax.random.key(2), h, mask, train=False)
    repaired = repair.apply(variables, h, mask, train=False)
    changed = jnp.abs(repaired - h).max(axis=-1, keepdims=True) > 0
    np.testing.assert_array_equal(changed, mask == 0)
    everywhere = repair.apply(variables, h, mask, train=False, gated=False)
    assert (jnp.abs(everywhere - h).max(axis=-1) > 0).all()


def test_nothing_dropped_is_nothing_changed(config):
    generator = architecture.make_generator(config)
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1)
    mask = jnp.ones((2, 4, 4, 1))

    @jax.jit
    def decodings():
        variables = generator.init(jax.random.key(1), images, method='reconstruct')
        phi = generator.apply(variables, images, method='encode')
        repair = generator.init(jax.random.key(2), phi, mask, method='corrupt')
        apply = partial(
            generator.apply, {kind: {**variables[kind], 'repair': repair[kind]['repair']} for kind in variables}
        )
        corrupted = [apply(phi, part * mask, method='corrupt') for part in (1, 0)]
        return apply(phi, method='decode'), apply(images, method='reconstruct'), *corrupted

    real, reconstructed, kept, damaged = decodings()
    np.testing.assert_allclose(kept, real, atol=1e-6)
    np.testing.assert_allclose(reconstructed, real, atol=1e-6)
    assert np.abs(damaged - real).max() > 1e-3
