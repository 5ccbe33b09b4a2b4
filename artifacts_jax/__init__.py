"""Self-supervised visual features by learning to spot artifacts (Jenni & Favaro, CVPR 2018), in JAX and Flax."""

import signal
import sys
from itertools import pairwise

__all__ = ['load_classifier', 'load_detector', 'load_features', 'load_segmenter']

# Whether this is `python -m artifacts_jax.NAME`, and no script or notebook that imports the package.
COMMAND = any(option == '-m' and name.startswith('artifacts_jax.') for option, name in pairwise(sys.orig_argv))

if COMMAND and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # without a stack trace of imports, which take a moment


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
