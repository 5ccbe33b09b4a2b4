"""The constants against the numbers of the protocols, written out again by hand."""

import pytest

from artifacts_jax.configs import default, tasks
from artifacts_jax.transfer.voc import crops
from artifacts_jax.transfer.voc.classification import presets, stage


def test_constants_are_those_of_the_protocols():
    assert presets.PRESETS['philkr']['all'] == (80_000, 0.001, 10_000)
    assert presets.PRESETS['philkr']['fc6'] == (80_000, 0.001, 10_000)
    assert presets.PRESETS['deepcluster']['all'] == (150_000, 0.001, 20_000)
    assert presets.PRESETS['deepcluster']['fc6'] == (150_000, 0.003, 5_000)
    assert (presets.CROPS, presets.DECAY) == (10, 0.000001)
    assert (presets.BIAS_RATE, presets.CLIP) == (2, 10)
    assert (crops.SIDE, crops.SCALES) == (227, (0.5, 2.0))


def test_keys_offer_what_there_is():
    assert tasks.VOC_CLASSIFICATION['preset'].values.split(', ') == list(presets.PRESETS)
    assert tasks.VOC_CLASSIFICATION['train'].values.split(', ') == list(presets.TRAINED)
    assert default.get_config().voc_classification.batch_size == 16
    assert default.get_config().voc_classification.crop_size == crops.SIDE


@pytest.mark.parametrize(('train', 'learn'), [('all', 8), ('fc6', 3), ('fc8', 1)])
def test_layers_learn_from_the_one_that_is_named(train, learn):
    from jax.tree_util import DictKey

    config = default.get_config()
    config.voc_classification.train = train
    paths = [('trunk', f'conv{n}') for n in range(1, 6)] + [('head', f'fc{n}') for n in (6, 7, 8)]
    learning = [stage._learns(config, tuple(map(DictKey, path))) for path in paths]
    assert learning == [False] * (8 - learn) + [True] * learn
