"""Named variants of the method: overrides of any configuration, for faithful reproduction and for ablations.

    python -m artifacts_jax.main --config=configs/stl10.py:reference --workdir=runs/stl10_reference
    python -m artifacts_jax.study --config=configs/study.py --workdir=runs/study

Several can be joined: `configs/stl10.py:reference,drop_rate_0.5`; the later wins. Keys on the command line win
over both.
"""

import difflib
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError


class Variant(NamedTuple):
    """Why a variant matters, in one line, and the keys that it overrides."""

    why: str
    overrides: dict[str, Any]


VARIANTS = {
    'default': Variant('what the others differ from', {}),
    'reference': Variant(
        "what the authors' networks and updates do: TensorFlow 1's upsampling and Adam, one pass, a leaking objective",
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
        f'drop_rate_{rate}': Variant('how much damage makes the best teacher', {'artifacts.drop_rate': rate})
        for rate in (0.1, 0.3, 0.5, 0.7, 0.9)
    },
    'no_mask_prediction': Variant('whether finding the damage adds to spotting it', {'artifacts.mask_weight': 0.0}),
    'no_repair': Variant('whether artifacts must be hard to spot', {'artifacts.repair_layers': 0}),
    'repair_first': Variant('repair in one place, before D1, or at every resolution', {'artifacts.repair_layers': 1}),
    'repair_ungated': Variant('repair may change kept positions: does locality matter', {'artifacts.gated': False}),
    'mask_not_fed': Variant('whether the repair must be told where the damage is', {'artifacts.feed_mask': False}),
    'twice': Variant(
        'damage and repair twice (for the real, the autoencoder): subtler artifacts',
        {'artifacts.rounds': 2},
    ),
    'real_input': Variant(
        "real examples without the autoencoder's noise, which then gives the fakes away", {'artifacts.real': 'input'}
    ),
    'encoder_3x3': Variant('overlapping receptive fields of the grid entries', {'model.encoder_kernel': 3}),
    'history': Variant(
        'half of the fakes from a buffer of earlier ones: the discriminator forgets less', {'artifacts.history': 1024}
    ),
    'gan': Variant(
        'a plain GAN, noise to image: spotting fakes without damage of real images',
        {
            'artifacts.generator': 'gan',
            'artifacts.drop_rate': 1.0,
            'artifacts.pixel_weight': 0.0,
            'artifacts.mask_weight': 0.0,
        },
    ),
    'generator_reference': Variant(
        'the leaking objective: fakes at a probability of 1/2', {'artifacts.generator_objective': 'reference'}
    ),
    'alternate': Variant('the generator against the updated discriminator', {'artifacts.updates': 'alternate'}),
    'simultaneous': Variant('both updates from one forward pass', {'artifacts.updates': 'simultaneous'}),
    'filter_global': Variant('dropped entries become the mean of the whole grid', {'artifacts.filter_size': 0}),
}


def apply(config: ConfigDict, names: str = '') -> ConfigDict:
    """Returns the config with the overrides of variants, named and separated by commas.

    Raises:
      ConfigError: there is no variant of that name.
    """
    for name in filter(None, names.split(',')):
        if name not in VARIANTS:
            nearest = difflib.get_close_matches(name, VARIANTS, n=1, cutoff=0)[0]
            raise ConfigError(f'there is no variant {name!r}; the nearest is {nearest!r}')
        config.update_from_flattened_dict(VARIANTS[name].overrides)
    return config
