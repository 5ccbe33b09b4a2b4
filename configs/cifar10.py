"""CIFAR-10 at 32x32, with a network small enough to learn useful features within an hour on two CPU cores.

    python -m artifacts_jax.main --config=configs/cifar10.py --workdir=runs/cifar10

Results (one seed, probe accuracy of the best layer, conv2, 10,000 test images): trained network 70.54 %, random network
66.21 %, raw pixels 41.05 %.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the configuration for CIFAR-10."""
    config = default.get_config()
    config.batch_size = 64
    config.data.update(name='cifar10', size=32)
    config.augment.update(crop_area=(0.5, 1.0), test_crop=1.0)
    config.model.update(
        image_size=32,
        encoder_widths=(32, 64, 128),
        widths=(64, 128, 192, 192, 128),
        kernels=(5, 3, 3, 3, 3),
        conv1_stride=1,
        hidden=512,
    )
    config.autoencoder.update(steps=1500, learning_rate=1e-3)
    config.artifacts.update(steps=2500, updates='simultaneous')  # one forward pass per step: a third faster on CPU
    config.probe.update(max_values=3072)
    config.update(log_every=50, eval_every=500, figure_every=1000, checkpoint_every=250, eval_examples=500)
    return variants.apply(config, variant)
