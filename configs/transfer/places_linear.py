"""Linear classifiers on conv1 to conv5, learned and tested on Places.

    python -m artifacts_jax.main --config=configs/transfer/places_linear.py --workdir=runs/places_linear \
        --config.pretrained=EXPORT

| data | before | options |
|---|---|---|
| Places365 | `python -m artifacts_jax.prepare places365_small`, 31 GB to download | |
| Places205, which is published | unpack it, and put its lists of images into the folder of images | the lines below |

    --config.data.name=FOLDER --config.data.probe_train=train_places205.csv --config.data.test=val_places205.csv

Published of Places205, top-1 %: the paper's best layer has 37.3.

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with this task, on images of 256 pixels."""
    config = default.get_config()
    config.stages = ('layerwise',)
    config.pretrained = 'random'
    # tfds's split test has no labels.
    config.data.update(name='places365_small', size=256, train='train', probe_train='train', test='validation')
    return variants.apply(config, variant)
