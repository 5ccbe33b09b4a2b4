"""The classifiers of the stl10 stage: one linear layer, or three layers that are fine-tuned together with the trunk.

Weights are initialised from a truncated normal distribution with standard deviation 0.005, biases with 0, as in the
authors' code.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Key

from artifacts_jax.models import layers
from artifacts_jax.models.discriminator import Trunk

kernel_init = nn.initializers.truncated_normal(
    0.005
)  # the deviation before truncation at two deviations, as in TensorFlow


class LinearHead(nn.Module):
    """One fully connected layer: conv5 to class logits (2019 code)."""

    classes: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        conv5: Float[Array, 'B M N C'],
        *,
        train: bool = False,
        dropout_keys: Sequence[Key[Array, ' B']] | None = None,
    ) -> Float32[Array, 'B {self.classes}']:
        """Returns the class logits; `train` and `dropout_keys` have no effect."""
        del train, dropout_keys
        fc = nn.DenseGeneral(self.classes, axis=(1, 2, 3), kernel_init=kernel_init, dtype=self.dtype, name='fc')
        return fc(conv5).astype(jnp.float32)


class FineTuneHead(nn.Module):
    """AlexNet's classifier: two hidden layers with batch norm, ReLU and dropout, and class logits (2018 code)."""

    classes: int
    hidden: int = 4096
    dropout: float = 0.5
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        conv5: Float[Array, 'B M N C'],
        *,
        train: bool = False,
        dropout_keys: Sequence[Key[Array, ' B']] | None = None,
    ) -> Float32[Array, 'B {self.classes}']:
        """Returns the class logits.

        Args:
          conv5: the conv5 activations of the trunk.
          train: whether batch norm uses the statistics of the batch, which also updates the running averages.
          dropout_keys: two arrays of keys, one for each hidden layer; None switches dropout off.
        """
        x = conv5
        for n, axes in enumerate(((1, 2, 3), (1,)), start=1):
            x = nn.DenseGeneral(
                self.hidden, axis=axes, use_bias=False, kernel_init=kernel_init, dtype=self.dtype, name=f'fc{n}'
            )(x)
            norm = layers.BatchNorm(False, self.dtype, self.axis_name, name=f'norm{n}')
            x = nn.relu(norm(x, train=train))
            if dropout_keys is not None:
                x = layers.dropout(dropout_keys[n - 1], x, self.dropout)
        x = nn.Dense(self.classes, kernel_init=kernel_init, dtype=self.dtype, name='fc3')(x)
        return x.astype(jnp.float32)


class Classifier(nn.Module):
    """The trunk with a head; its variables have the branches 'trunk' and 'head'."""

    trunk: Trunk
    head: LinearHead | FineTuneHead

    def __call__(
        self,
        images: Float[Array | np.ndarray, 'B H W 3'],
        *,
        train: bool = False,
        dropout_keys: Sequence[Key[Array, ' B']] | None = None,
    ) -> Float32[Array, 'B {self.head.classes}']:
        """Returns the class logits of images in [-1, 1]; arguments as in the head.

        With `train`, conv5 of the trunk is also normalised by the statistics of the batch.
        """
        conv5, _ = self.trunk(images, train=train)
        return self.head(conv5, train=train, dropout_keys=dropout_keys)
