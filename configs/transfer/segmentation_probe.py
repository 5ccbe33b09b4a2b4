"""A linear segmentation probe on PASCAL VOC 2012: one pixel classifier on each frozen layer.

    python -m artifacts_jax.main --config=configs/transfer/segmentation_probe.py --workdir=runs/segmentation_probe \\
        --config.pretrained=EXPORT --config.data.name=/path/to/VOCdevkit/VOC2012

Data: unpack VOCtrainval_11-May-2012.tar. Other data with masks: a folder with images/SPLIT and masks/SPLIT, or a tfds
data set such as oxford_iiit_pet. Set the splits with --config.data.probe_train and --config.data.test.

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with this task."""
    config = default.get_config()
    config.stages = ('segmentation_probe',)
    config.pretrained = 'random'
    config.data.update(name='VOCdevkit/VOC2012', train='train', probe_train='train', test='val')
    return variants.apply(config, variant)
