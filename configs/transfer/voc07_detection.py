"""Detection of PASCAL VOC 2007: Fast R-CNN on the trunk, trained on trainval, tested on test.

    python -m artifacts_jax.main --config=configs/transfer/voc07_detection.py --workdir=runs/voc07_detection \
        --config.pretrained=EXPORT

Proposals: `pip install -e '.[voc]'` for selective search, which takes seven CPU hours, or the published boxes:
--config.voc_detection.proposals='FOLDER/voc_2007_{split}.mat'. Data: run `python -m artifacts_jax.prepare voc/2007`, or
set --config.data.name=VOCdevkit/VOC2007, which the published boxes need because of its order of images. For five
scales, set --config.voc_detection.preset=multi_scale. Published mAP in %: 52.5 (the paper), 43.4 (random network), 56.8
(supervised, ImageNet labels).

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with this task."""
    config = default.get_config()
    config.stages = ('voc_detection',)
    config.pretrained = 'random'
    config.data.update(name='voc/2007', train='trainval', probe_train='trainval', test='test')
    config.update(log_every=100, eval_every=5000, eval_examples=200, checkpoint_every=5000)
    return variants.apply(config, variant)
