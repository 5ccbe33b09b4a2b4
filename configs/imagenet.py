"""ImageNet at 128x128.

    python -m artifacts_jax.main --config=configs/imagenet.py --workdir=runs/imagenet --config.data.data_dir=DIR

The transfer results of the paper use a network trained on ImageNet, but the settings of that training are not
published. Values marked "unknown" are those of the STL-10 recipe, or a guess scaled from it.

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the configuration for ImageNet with images of 128x128 pixels, for which the mask is 8x8."""
    config = default.get_config()
    config.dtype = 'bfloat16'
    config.batch_size = 256  # unknown
    config.data.update(name='imagenet2012', train='train', probe_train='train', test='validation', size=160)
    config.model.update(image_size=128)
    config.autoencoder.update(steps=400_000)  # unknown: about 80 epochs
    config.artifacts.update(steps=400_000)  # unknown: about 80 epochs
    config.optim.ema_decay = 0.9999
    config.probe.update(solver='sgd', penalties=(1e-5, 1e-4))
    return variants.apply(config, variant)
