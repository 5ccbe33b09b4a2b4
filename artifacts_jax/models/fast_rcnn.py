"""Fast R-CNN on AlexNet: RoI pooling replaces pool5; fc7 is followed by class scores and box deltas.

Source: rbgirshick/fast-rcnn, models/CaffeNet/train.prototxt.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32, Int32, Key, UInt8

from artifacts_jax.models import alexnet, layers, roi_pooling
from artifacts_jax.models.discriminator import CHANNEL_MEANS, Geometry, Trunk, scale_pixels


class Regions(nn.Module):
    """fc6 and fc7 with dropout, and two output layers: class scores and box deltas. Class 0 is the background."""

    classes: int
    hidden: int = 4096
    rate: float = 0.5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, pooled: Float[Array, 'B R S S C'], dropout_keys: Key[Array, 'B 2'] | None = None
    ) -> tuple[Float32[Array, 'B R K'], Float32[Array, 'B R K 4']]:
        """Returns (scores before softmax, normalised box deltas of boxes.encode) for each class.

        Args:
          pooled: the RoI-pooled features of each region.
          dropout_keys: two keys for each image; None switches dropout off.
        """
        images, regions = pooled.shape[:2]
        x = pooled.reshape(images, regions, -1)
        for n, name in enumerate(('fc6', 'fc7')):
            dense = nn.Dense(
                self.hidden, kernel_init=alexnet.GAUSSIAN, bias_init=alexnet.BIAS, dtype=self.dtype, name=name
            )
            x = nn.relu(dense(x))
            if dropout_keys is not None:
                x = layers.dropout(dropout_keys[:, n], x.reshape(images, -1), self.rate).reshape(x.shape)
        scores = nn.Dense(
            1 + self.classes, kernel_init=nn.initializers.normal(0.01), dtype=self.dtype, name='cls_score'
        )(x)
        last = nn.Dense(
            4 * (1 + self.classes), kernel_init=nn.initializers.normal(0.001), dtype=self.dtype, name='bbox_pred'
        )
        deltas = last(x).reshape(images, regions, 1 + self.classes, 4)
        return scores.astype(jnp.float32), deltas.astype(jnp.float32)


class Detector(nn.Module):
    """The trunk, RoI pooling and the head; its variables have the branches 'trunk' and 'head'."""

    trunk: Trunk
    head: Regions

    def __call__(
        self,
        images: Float[Array, 'B H W 3'],
        boxes: Float[Array, 'B R 4'],
        valid: Bool[Array, 'B R'],
        dropout_keys: Key[Array, 'B 2'] | None = None,
    ) -> tuple[Float32[Array, 'B R K'], Float32[Array, 'B R K 4']]:
        """Returns (scores before softmax, normalised box deltas) for each class.

        Args:
          images: images in [-1, 1].
          boxes: regions of each image, in pixels.
          valid: False for padding of the boxes.
          dropout_keys: two keys for each image; None switches dropout off.
        """
        return self.head(self.pool(images, boxes, valid), dropout_keys)

    def pool(
        self, images: Float[Array, 'B H W 3'], boxes: Float[Array, 'B R 4'], valid: Bool[Array, 'B R']
    ) -> Float[Array, 'B R S S C']:
        """Returns the RoI-pooled conv5 features of boxes; 0 where `valid` is False."""
        conv5, _ = self.trunk(images)
        return roi_pooling.pool(conv5, boxes, valid, scale=1 / (4 * self.trunk.conv1_stride))

    def predict(self, pooled: Float[Array, 'B R S S C']) -> tuple[Float32[Array, 'B R K'], Float32[Array, 'B R K 4']]:
        """Returns (scores before softmax, normalised box deltas) for RoI-pooled features."""
        return self.head(pooled)


def geometry(kernel: int) -> Geometry:
    """Returns the padding of the trunk, for the kernel size of conv1.

    With it, position k of a row of conv5 is centred at pixel k * stride for every image size, as RoI pooling assumes.
    """
    return Geometry(kernel // 2, 1, 1)


def preprocess(
    images: UInt8[Array | np.ndarray, 'B H W 3'], sizes: Int32[Array | np.ndarray, 'B 2']
) -> Float32[Array, 'B H W 3']:
    """Returns images in [-1, 1]. Their padding becomes 0 when the trunk subtracts the channel means.

    Args:
      images: images with padding below and to the right.
      sizes: heights and widths without padding.
    """
    rows, columns = (jnp.arange(images.shape[axis])[None] < sizes[:, axis - 1, None] for axis in (1, 2))
    inside = (rows[:, :, None] & columns[:, None, :])[..., None]
    means = jnp.array(CHANNEL_MEANS, jnp.float32)[None, None, None]
    return scale_pixels(jnp.where(inside, images.astype(jnp.float32), means))
