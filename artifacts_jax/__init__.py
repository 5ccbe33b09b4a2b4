"""Self-supervised visual features by learning to spot artifacts (Jenni & Favaro, CVPR 2018), in JAX and Flax."""

from artifacts_jax import startup

__all__ = ['load_classifier', 'load_detector', 'load_features', 'load_segmenter']

startup.importing()


def __getattr__(name):
    # JAX takes seconds to import; a misspelt command-line flag should not wait for it.
    if name == 'load_detector':
        from artifacts_jax.transfer.voc.detection import detector as loaders
    elif name == 'load_segmenter':
        from artifacts_jax.transfer.voc.segmentation import segmenter as loaders
    elif name in __all__:
        from artifacts_jax.exchange import loaders
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(loaders, name)
