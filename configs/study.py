"""The ablation study's network and schedule: CIFAR-10, small enough for twenty variants on two CPU cores.

    python -m artifacts_jax.study --config=configs/study.py --workdir=runs/study --config.data.data_dir=DIR

Results: see the README.
"""

from configs import default, variants


def get_config(variant=''):
    """Returns the default configuration with CIFAR-10, half the width of configs/cifar10.py and short stages."""
    config = default.get_config()
    config.batch_size = 64
    config.data.update(name='cifar10', size=32)
    config.augment.update(crop_area=(0.5, 1.0), test_crop=1.0)
    config.model.update(
        image_size=32,
        encoder_widths=(16, 32, 64),
        widths=(32, 64, 96, 96, 64),
        kernels=(5, 3, 3, 3, 3),
        conv1_stride=1,
        hidden=256,
    )
    config.autoencoder.update(steps=1000, learning_rate=2e-3)
    config.artifacts.update(steps=200, learning_rate=5e-4, updates='simultaneous')
    config.probe.update(max_values=1024, max_train=10_000, max_test=5000, penalties=(1e-3, 1e-2))
    config.monitor.update(bank=500, queries=250)
    config.update(log_every=50, eval_every=1000, figure_every=1000, checkpoint_every=500, keep_checkpoints=1)
    return variants.apply(config, variant)
