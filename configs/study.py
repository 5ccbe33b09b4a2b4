"""Network and schedule of the ablation study on CIFAR-10, small enough for twenty variants on two CPU cores.

    python -m artifacts_jax.study --config=configs/study.py --workdir=runs/study --config.data.data_dir=DIR

Results: see docs/study.md.
"""

from artifacts_jax.configs import cifar10, variants


def get_config(variant=''):
    """Returns the configuration of cifar10.py with half the width and short stages."""
    config = cifar10.get_config()
    config.model.update(encoder_widths=(16, 32, 64), widths=(32, 64, 96, 96, 64), hidden=256)
    config.autoencoder.update(steps=1000, learning_rate=2e-3)
    config.artifacts.update(steps=200, learning_rate=5e-4)
    config.probe.update(max_values=1024, max_train=10_000, max_test=5000, penalties=(1e-3, 1e-2))
    config.monitor.update(bank=500, queries=250)
    config.update(log_every=50, eval_every=1000, figure_every=1000, checkpoint_every=500, keep_checkpoints=1)
    config.eval_examples = 1000
    return variants.apply(config, variant)
