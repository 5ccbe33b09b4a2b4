"""Linear support vector machines on conv5, learned and tested on PASCAL VOC 2007, on all images and low-shot.

    python -m artifacts_jax.main --config=configs/transfer/voc07_svm.py --workdir=runs/voc07_svm \
        --config.pretrained=EXPORT

Before: `python -m artifacts_jax.prepare voc/2007`, or --config.data.name=VOCdevkit/VOC2007, as VOC unpacks it, in whose
order the three folds are cut. Other layers: --config.voc_svm.layers="('conv1', 'conv2', 'conv3', 'conv4', 'conv5')".

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with this task, on images of 256 pixels."""
    config = default.get_config()
    config.stages = ('voc_svm',)
    config.pretrained = 'random'
    config.data.update(name='voc/2007', size=256, train='trainval', probe_train='trainval', test='test')
    return variants.apply(config, variant)
