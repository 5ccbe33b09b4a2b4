"""Classification of PASCAL VOC 2007: AlexNet on the trunk, fine-tuned on trainval, tested on test.

    python -m artifacts_jax.main --config=configs/transfer/voc07_classification.py --workdir=runs/voc07 \
        --config.pretrained=EXPORT

Data: run `python -m artifacts_jax.prepare voc/2007`, or set --config.data.name=VOCdevkit/VOC2007, the unpacked VOC with
the test images. Published mAP in %: 69.8 (the paper), 53.3 (random network), 79.9 (supervised, ImageNet labels).

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with this task."""
    config = default.get_config()
    config.stages = ('voc_classification',)
    config.pretrained = 'random'
    config.data.update(name='voc/2007', train='trainval', probe_train='trainval', test='test', loading='stream')
    config.update(log_every=100, eval_every=5000, eval_examples=500, checkpoint_every=5000)
    return variants.apply(config, variant)
