"""Linear classifiers on conv1 to conv5, trained and tested on Places.

    python -m artifacts_jax.main --config=configs/transfer/places_linear.py --workdir=runs/places_linear \
        --config.pretrained=EXPORT

| data | preparation | options |
|---|---|---|
| Places365 | `python -m artifacts_jax.prepare places365_small`; downloads 31 GB | |
| Places205, used in the paper | unpack the archive, and copy its image lists to the image folder | the line below |

    --config.data.name=FOLDER --config.data.probe_train=train_places205.csv --config.data.test=val_places205.csv

Published top-1 accuracy on Places205: 37.3 % for the paper's best layer.

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with this task, on images of 256 pixels."""
    config = default.get_config()
    config.stages = ('layerwise',)
    config.pretrained = 'random'
    # The split 'test' of tfds has no labels.
    config.data.update(name='places365_small', size=256, train='train', probe_train='train', test='validation')
    return variants.apply(config, variant)
