"""The whole method in minutes on two CPU cores, on 16 photographs that are included in scikit-image and scikit-learn.

    launch/local.sh

The demo shows that everything works. It does not measure the quality of the features, because there are only 16
photographs, and the label of an image is the number of its photograph.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the configuration with a small network and short stages."""
    config = default.get_config()
    config.batch_size = 16  # smaller batches repair dark photographs better in the same time
    config.data.update(size=96)
    config.model.update(
        image_size=64,
        encoder_widths=(16, 32, 64, 128),
        widths=(32, 64, 96, 96, 64),
        kernels=(7, 5, 3, 3, 3),
        conv1_stride=2,
        hidden=256,
    )
    config.autoencoder.update(steps=800, learning_rate=2e-3)
    config.artifacts.update(steps=600, learning_rate=1e-3)
    config.probe.update(max_values=2048, iterations=50)
    config.monitor.update(bank=500, queries=250)
    config.update(log_every=50, eval_every=200, figure_every=200, checkpoint_every=200, eval_examples=128)
    return variants.apply(config, variant)
