"""Self-supervised visual features by learning to spot artifacts (Jenni & Favaro, CVPR 2018), in JAX and Flax."""

__all__ = ['load_classifier', 'load_features']


def __getattr__(name):
    # JAX takes seconds to import; a misspelt command-line flag should not wait for it.
    if name in __all__:
        from artifacts_jax.exchange import exports

        return getattr(exports, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
