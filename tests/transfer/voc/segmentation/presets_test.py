"""The constants against the numbers of the protocols, written out again by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.configs import default, tasks
from artifacts_jax.configs.transfer import voc12_segmentation
from artifacts_jax.models import fcn
from artifacts_jax.transfer.voc.segmentation import network, presets, stage


def test_constants_are_those_of_the_protocols():
    assert presets.PRESETS['fcn'] == (100_000, 0.0001, (), 1, 0.0005)
    assert presets.PRESETS['zhang'] == (150_000, 0.0001, (50_000, 100_000), 2, 0)
    assert (presets.IMAGES, presets.MOMENTUM, presets.DECAY, presets.DROP) == (20, 0.9, 0.0005, 0.1)
    assert presets.SCORE_BIAS_RATE == 2
    assert (fcn.PADDING * 4, fcn.offset(), fcn.WINDOW, len(network.CLASSES)) == (100, 18, 6, 21)


def test_keys_offer_what_there_is():
    assert tasks.VOC_SEGMENTATION['preset'].values.split(', ') == list(presets.PRESETS)
    assert default.get_config().voc_segmentation.batch_size == presets.IMAGES
    assert voc12_segmentation.get_config().accumulate == presets.IMAGES


@pytest.mark.parametrize(
    ('preset', 'bias', 'rates'),
    [('fcn', 1 + 0.0005 * 2, (1, 1, 1, 1)), ('zhang', 2, (1, 0.1, 0.1, 0.01))],
)
def test_the_optimiser_has_the_rules_of_biases_and_the_drops(preset, bias, rates):
    config = default.get_config()
    config.voc_segmentation.update(preset=preset, steps=150)
    optimiser = stage.Stage('a')._optimiser(config)
    layer = {'kernel': jnp.full(1, 2.0), 'bias': jnp.full(1, 2.0)}
    params = {'head': {'fc7': layer, 'score': layer}, 'trunk': {'conv1': {'group0': layer}}}
    ones = {'head': {'fc7': layer, 'score': layer}, 'trunk': {'conv1': {'group0': layer}}}
    ones = {network: {name: _ones(x) for name, x in tree.items()} for network, tree in ones.items()}
    state = optimiser.init(params)
    updates, _ = optimiser.update(ones, state, params)
    found = {name: float(x[0]) / -1e-4 for name, x in _flat(updates).items()}
    weight = 1 + 0.0005 * 2
    expected = {'head.fc7.kernel': weight, 'head.fc7.bias': bias, 'head.score.kernel': weight, 'head.score.bias': 2}
    expected |= {'trunk.conv1.group0.kernel': weight, 'trunk.conv1.group0.bias': bias}
    assert found == pytest.approx(expected, rel=1e-5)
    for step, rate in zip((0, 50, 99, 100), rates):
        updates, _ = optimiser.update(ones, state._replace(count=np.int32(step)), params)
        assert float(updates['head']['score']['bias'][0]) == pytest.approx(-2e-4 * rate)


def _ones(tree):
    return {name: _ones(x) if isinstance(x, dict) else jnp.ones(1) for name, x in tree.items()}


def _flat(tree, prefix=''):
    found = {}
    for name, x in tree.items():
        found |= _flat(x, f'{prefix}{name}.') if isinstance(x, dict) else {f'{prefix}{name}': x}
    return found
