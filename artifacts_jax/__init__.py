"""Self-supervised visual features by learning to spot artifacts (Jenni & Favaro, CVPR 2018), in JAX and Flax."""

from artifacts_jax.export import load_features

__all__ = ['load_features']
