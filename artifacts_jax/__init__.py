"""Self-supervised visual features by learning to spot artifacts (Jenni & Favaro, CVPR 2018), in JAX and Flax."""

from artifacts_jax import startup
from artifacts_jax.version import __version__

__all__ = ['__version__', 'load_classifier', 'load_detector', 'load_features', 'load_segmenter', 'run']

startup.handle_ctrl_c_during_imports()


def __getattr__(name):
    # JAX takes seconds to import; a misspelt command-line flag should not wait for it.
    if name == 'load_detector':
        from artifacts_jax.transfer.voc.detection import detector as module
    elif name == 'load_segmenter':
        from artifacts_jax.transfer.voc.segmentation import segmenter as module
    elif name == 'run':
        from artifacts_jax import pipeline as module
    elif name in __all__:
        from artifacts_jax.exchange import loaders as module
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(module, name)


def __dir__():
    return sorted({*globals(), *__all__})
