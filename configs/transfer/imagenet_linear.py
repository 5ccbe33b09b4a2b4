"""Linear classifiers on conv1 to conv5, trained and tested on ImageNet (ILSVRC-2012).

    python -m artifacts_jax.main --config=configs/transfer/imagenet_linear.py --workdir=runs/imagenet_linear \
        --config.pretrained=EXPORT

Data: run `python -m artifacts_jax.prepare imagenet2012`, or set --config.data.name to a folder with train/CLASS/ and
val/CLASS/. Published top-1 accuracy in %: 19.5, 33.3, 37.9, 38.9, 34.9 (the paper); random network 11.6 to 17.1.

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with this task, on images of 256 pixels."""
    config = default.get_config()
    config.stages = ('layerwise',)
    config.pretrained = 'random'
    config.data.update(name='imagenet2012', size=256, train='train', probe_train='train', test='validation')
    return variants.apply(config, variant)
