"""STL-10 as published: 96x96, 100,000 unlabelled images, 500 epochs of each stage at a batch of 2 x 128.

    python -m artifacts_jax.main --config=configs/stl10.py --workdir=runs/stl10
    python -m artifacts_jax.main --config=configs/stl10.py --workdir=runs/stl10 --config.stages="('stl10',)"

The second command is the published transfer on all labelled images; with --config.stl10.folds=PATH, of the data
set's fold_indices.txt, also on its ten folds.

The 2018 code took 195,250 steps a stage on two GPUs, 128 images on each, with batch statistics per GPU; here they
are those of the global batch of 256. It kept a moving average of the weights and trained without it.

Results: not run yet.
"""

from artifacts_jax.configs import default, variants


def get_config(variant=''):
    """Returns the default configuration, which has the recipe's constants, with STL-10's data and schedule."""
    config = default.get_config()
    config.batch_size = 256
    config.data.update(name='stl10', train='unlabelled', probe_train='train', test='test')
    config.optim.ema_decay = 0.9999
    config.monitor.update(bank=5000, queries=2000)
    return variants.apply(config, variant)
