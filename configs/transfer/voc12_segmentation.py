"""Segmentation of PASCAL VOC 2012: FCN-32s on the trunk, trained on train and SBD's train, tested on seg11valid.

    python -m artifacts_jax.main --config=configs/transfer/voc12_segmentation.py --workdir=runs/voc12_segmentation \
        --config.pretrained=EXPORT --config.data.name=VOCdevkit/VOC2012 \
        --config.voc_segmentation.sbd=benchmark_RELEASE --config.data.test=seg11valid.txt

Data: unpack VOCtrainval_11-May-2012.tar and benchmark.tgz of SBD. The list seg11valid has the 736 images of the split
val of VOC2011 that are not in the split train of SBD. Published mean IoU on seg11valid in %: 38.1 (the paper), 19.8
(random network), 48.0 (supervised, ImageNet labels).

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with this task."""
    config = default.get_config()
    config.stages = ('voc_segmentation',)
    config.pretrained = 'random'
    config.data.update(name='VOCdevkit/VOC2012', train='train', probe_train='train', test='seg11valid')
    config.update(log_every=100, eval_every=4000, eval_examples=200, checkpoint_every=4000, accumulate=20)
    return variants.apply(config, variant)
