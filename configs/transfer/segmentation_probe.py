"""A linear probe by segmentation, of PASCAL VOC 2012: a classifier of pixels on every frozen layer.

    python -m artifacts_jax.main --config=configs/transfer/segmentation_probe.py --workdir=runs/segmentation_probe \\
        --config.pretrained=EXPORT --config.data.name=/path/to/VOCdevkit/VOC2012

Before: VOCtrainval_11-May-2012.tar, unpacked. Other data with masks: FOLDER/images/SPLIT and FOLDER/masks/SPLIT, or
tfds's, such as oxford_iiit_pet; --config.data.probe_train and --config.data.test name the splits.

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
