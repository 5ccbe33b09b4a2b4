"""Linear support vector machines on conv5, trained and tested on PASCAL VOC 2007, with all images and low-shot.

    python -m artifacts_jax.main --config=configs/transfer/voc07_svm.py --workdir=runs/voc07_svm \
        --config.pretrained=EXPORT

Data: run `python -m artifacts_jax.prepare voc/2007`, or set --config.data.name=VOCdevkit/VOC2007, the unpacked VOC. The
three folds depend on the order of the images. For other layers, set
--config.voc_svm.layers="('conv1', 'conv2', 'conv3', 'conv4', 'conv5')".

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
