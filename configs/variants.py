"""Named variants of the method: overrides of any configuration, for reproduction of the authors' code and ablations.

    python -m artifacts_jax.main --config=configs/stl10.py:reference --workdir=runs/stl10_reference
    python -m artifacts_jax.study --config=configs/study.py --workdir=runs/study

Several variants can be joined: `configs/stl10.py:reference,drop_rate_0.5`; the later variant wins. Keys on the command
line win over variants.
"""

import difflib
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError


class Variant(NamedTuple):
    """The purpose of a variant, in one line, and the keys that it overrides."""

    why: str
    overrides: dict[str, Any]


VARIANTS = {
    'default': Variant('the baseline of all other variants', {}),
    'reference': Variant(
        "networks and updates of the authors' code: TensorFlow 1's upsampling and Adam, one pass, a leaking objective",
        {
            'model.upsampling': 'legacy',
            'artifacts.updates': 'simultaneous',
            'artifacts.generator_objective': 'reference',
            'optim.bias_gradient_scale': 2.0,
            'optim.epsilon': 1e-5,
            'optim.epsilon_hat': True,
            'stl10.batch_norm': 'reference',
        },
    ),
    **{
        f'drop_rate_{rate}': Variant('which amount of damage gives the best features', {'artifacts.drop_rate': rate})
        for rate in (0.1, 0.3, 0.5, 0.7, 0.9)
    },
    'no_mask_prediction': Variant('whether predicting the mask improves the features', {'artifacts.mask_weight': 0.0}),
    'no_repair': Variant('whether artifacts must be hard to spot', {'artifacts.repair_layers': 0}),
    'repair_first': Variant(
        'repair before the first decoder layer only, or at every resolution', {'artifacts.repair_layers': 1}
    ),
    'repair_ungated': Variant(
        'whether it matters that the repair changes dropped positions only', {'artifacts.gated': False}
    ),
    'mask_not_fed': Variant('whether the repair network needs the mask as input', {'artifacts.feed_mask': False}),
    'twice': Variant(
        'two rounds of damage and repair, two autoencoder passes for the real example: subtler artifacts',
        {'artifacts.rounds': 2},
    ),
    'real_input': Variant(
        "real examples without the autoencoder's noise, by which fakes can then be recognised",
        {'artifacts.real': 'input'},
    ),
    'encoder_3x3': Variant('overlapping receptive fields of the grid entries', {'model.encoder_kernel': 3}),
    'history': Variant(
        'half of the fakes from a buffer of earlier fakes, so that the discriminator forgets less',
        {'artifacts.history': 1024},
    ),
    'gan': Variant(
        'a plain GAN that maps noise to images: spotting fakes without damaged real images',
        {
            'artifacts.generator': 'gan',
            'artifacts.drop_rate': 1.0,
            'artifacts.pixel_weight': 0.0,
            'artifacts.mask_weight': 0.0,
        },
    ),
    'generator_reference': Variant(
        'the leaking objective: it drives fakes to a probability of 1/2', {'artifacts.generator_objective': 'reference'}
    ),
    'alternate': Variant(
        'the generator is updated against the updated discriminator', {'artifacts.updates': 'alternate'}
    ),
    'simultaneous': Variant('both updates share one forward pass', {'artifacts.updates': 'simultaneous'}),
    'filter_global': Variant('the mean of the whole grid replaces dropped entries', {'artifacts.filter_size': 0}),
}


def apply(config: ConfigDict, names: str = '') -> ConfigDict:
    """Returns the config with the overrides of variants, whose names are separated by commas.

    Raises:
      ConfigError: a name is unknown; the message gives the nearest variant.
    """
    for name in filter(None, names.split(',')):
        if name not in VARIANTS:
            nearest = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0)[0]
            raise ConfigError(f'there is no variant {name!r}; the nearest is {nearest!r}')
        config.update_from_flattened_dict(VARIANTS[name].overrides)
    return config
