"""The published STL-10 recipe: 96x96 pixels, 100,000 unlabelled images, 500 epochs per stage, batch size 2 x 128.

    python -m artifacts_jax.main --config=configs/stl10.py --workdir=runs/stl10
    python -m artifacts_jax.main --config=configs/stl10.py --workdir=runs/stl10 --config.stages="('stl10',)"

The second command runs the published transfer protocol on all labelled images. With --config.stl10.folds=PATH, the path
of fold_indices.txt of the data set, it also uses the ten folds.

The code of 2018 trained each stage for 195,250 steps on two GPUs with 128 images each, and computed batch statistics
per GPU. Here, batch statistics are those of the global batch of 256 images. As in that code, a moving average of the
weights is saved but not used for training.

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration, which has the constants of the recipe, with the data of STL-10."""
    config = default.get_config()
    config.batch_size = 256
    config.data.update(name='stl10', train='unlabelled', probe_train='train', test='test')
    config.optim.ema_decay = 0.9999
    config.monitor.update(bank=5000, queries=2000)
    return variants.apply(config, variant)
