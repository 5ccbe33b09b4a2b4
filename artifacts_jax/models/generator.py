"""Encoder, decoder and repair network, and the generator that has them side by side: pure Flax modules.

Images are in [-1, 1]. Architectures: section 3 of the paper and the authors' 2019 STL-10 code.
"""

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from artifacts_jax.models import layers
from artifacts_jax.models.cpu import products

Images = Float[Array | np.ndarray, 'B H W 3']
Mask = Float[Array | np.ndarray, 'B M N 1']


class Encoder(nn.Module):
    """(w0)3c1-(w1)2c2-(w2)2c2-...: images to phi, [B, H / 2^n, W / 2^n, w_n] with n = len(widths) - 1."""

    widths: tuple[int, ...]
    kernel: int = 2  # of the layers that halve the size
    products: bool = False  # whether to convolve by products.py
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, images: Images, *, train: bool = False
    ) -> tuple[Float[Array, 'B M N C'], dict[str, Float[Array, 'B _ _ _']]]:
        """Returns (phi, {'layer1': activations, ...})."""
        x, features = jnp.asarray(images, self.dtype), {}
        for n, width in enumerate(self.widths, start=1):
            kernel, stride = (3, 1) if n == 1 else (self.kernel, 2)
            layer = layers.ConvNorm(
                width,
                kernel,
                stride,
                products=self.products,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f'layer{n}',
            )
            features[f'layer{n}'] = x = layer(x, train=train)
        return x, features


class Decoder(nn.Module):
    """(w_{n-1})3rc2-...-(w0)3rc2-(3)3c1, rc = bilinear doubling and a convolution: phi back to images."""

    widths: tuple[int, ...]
    upsampling: str = 'half_pixel'
    products: bool = False  # whether to convolve by products.py
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, phi: Float[Array, 'B M N C'], *, train: bool = False, repair: Callable | None = None
    ) -> tuple[Float32[Array, 'B H W 3'], dict[str, Float[Array, 'B _ _ _']]]:
        """Decodes phi.

        Args:
          phi: encoder features, damaged or not.
          train: normalise by the batch and update the running averages.
          repair: (n, activations) -> activations, called before each layer D_{n + 1}.

        Returns:
          (images, {'layer1': activations, ...}).
        """
        x, features = phi, {}
        depths = self.widths[-2::-1]
        for n, width in enumerate(depths):
            x = x if repair is None else repair(n, x)
            layer = layers.ConvNorm(
                width,
                upsampling=self.upsampling,
                products=self.products,
                dtype=self.dtype,
                axis_name=self.axis_name,
                name=f'layer{n + 1}',
            )
            features[f'layer{n + 1}'] = x = layer(x, train=train)
        x = x if repair is None else repair(len(depths), x)
        last = f'layer{len(self.widths)}'
        colours = nn.Conv(
            3,
            (3, 3),
            kernel_init=layers.he_init,
            dtype=self.dtype,
            conv_general_dilated=products.convolve if self.products else None,
            name=last,
        )
        features[last] = images = jnp.tanh(colours(x).astype(jnp.float32))
        return images, features


class RepairLayer(nn.Module):
    """R(h, Omega) = h + (1 - Omega) * F([h, Omega]): changes dropped positions only."""

    feed_mask: bool = True  # whether F sees Omega
    products: bool = False  # whether to convolve by products.py
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, h: Float[Array, 'B H W C'], mask: Float[Array, 'B H W 1'], *, train: bool, gated: bool = True
    ) -> Float[Array, 'B H W C']:
        """Repairs h. Not `gated`, it changes kept positions too."""
        depth, mask = h.shape[-1], mask.astype(h.dtype)
        x = jnp.concatenate([h, mask], axis=-1) if self.feed_mask else h
        first = layers.ConvNorm(
            depth,
            constant=int(self.feed_mask),
            products=self.products,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name='conv1',
        )
        second = nn.Conv(
            depth,
            (3, 3),
            kernel_init=layers.he_init,
            dtype=self.dtype,
            conv_general_dilated=products.convolve if self.products else None,
            name='conv2',
        )
        x = second(first(x, train=train))
        return h + ((1 - mask) * x if gated else x)


class Repair(nn.Module):
    """The repair layers R1, R2, ..., one before each of the decoder's first `depth` layers."""

    depth: int
    feed_mask: bool = True
    products: bool = False  # whether to convolve by products.py
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Declares the layers."""
        self.layers = [
            RepairLayer(self.feed_mask, self.products, self.dtype, self.axis_name) for _ in range(self.depth)
        ]

    def __call__(
        self, n: int, h: Float[Array, 'B H W C'], mask: Mask, *, train: bool, gated: bool = True
    ) -> Float[Array, 'B H W C']:
        """Applies R_{n + 1}, if there is one, to h; `mask` is repeated to h's resolution."""
        if n >= self.depth:
            return h
        return self.layers[n](h, layers.upsample_nearest(mask, h.shape[1:3]), train=train, gated=gated)


class Generator(nn.Module):
    """Encoder, decoder and repair network side by side, with the two decodings that the discriminator compares.

    Parameters and statistics have the branches 'encoder', 'decoder' and 'repair'. The autoencoder stage makes
    and trains the first two; the artifacts stage freezes them and trains the third. In place of damage and repair,
    the branch 'gan' is a plain GAN's generator: a decoder of noise.
    """

    widths: tuple[int, ...]
    encoder_kernel: int = 2
    upsampling: str = 'half_pixel'
    filter_size: int = 3  # of the damage
    repair_layers: int = -1  # before the decoder's first layers; -1: before each
    feed_mask: bool = True
    gated: bool = True
    rounds: int = 1  # of damage and repair
    products: bool = False  # whether to convolve by products.py
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Declares the networks; Flax makes the parameters of those that are used."""
        depth = len(self.widths) if self.repair_layers == -1 else self.repair_layers
        self.encoder = Encoder(self.widths, self.encoder_kernel, self.products, self.dtype, self.axis_name)
        self.decoder = Decoder(self.widths, self.upsampling, self.products, self.dtype, self.axis_name)
        self.repair = Repair(depth, self.feed_mask, self.products, self.dtype, self.axis_name)
        self.gan = Decoder(self.widths, self.upsampling, self.products, self.dtype, self.axis_name)

    def reconstruct(self, images: Images, *, train: bool = False) -> Float32[Array, 'B H W 3']:
        """Returns the autoencoder's output D(E(images))."""
        return self.decode(self.encoder(images, train=train)[0], train=train)

    def encode(self, images: Images) -> Float[Array, 'B M N C']:
        """Returns phi with frozen statistics."""
        return self.encoder(images)[0]

    def decode(self, phi: Float[Array, 'B M N C'], *, train: bool = False) -> Float32[Array, 'B H W 3']:
        """Returns the real example, D(phi): no damage, no repair."""
        return self.decoder(phi, train=train)[0]

    def damaged(self, phi: Float[Array, 'B M N C'], mask: Mask) -> Float32[Array, 'B H W 3']:
        """Returns D(damaged phi) without repair, for figures."""
        return self.decode(layers.damage(phi, mask, self.filter_size))

    def corrupt(
        self, phi: Float[Array, 'B M N C'], mask: Mask, *, train: bool = False, gated: bool = True
    ) -> Float32[Array, 'B H W 3']:
        """Returns phi damaged, then repaired before the layers of the frozen decoder.

        Args:
          phi: frozen features.
          mask: 1 kept, 0 dropped.
          train: the repair network normalises by the batch; encoder and decoder never do here.
          gated: False lets the repair also change kept positions, for figures.

        Returns:
          Images in [-1, 1].
        """

        def repair(n, h):
            return self.repair(n, h, mask, train=train, gated=gated and self.gated)

        return self.decoder(layers.damage(phi, mask, self.filter_size), repair=repair)[0]

    def fake(self, phi: Float[Array, 'B M N C'], mask: Mask, *, train: bool = False) -> Float32[Array, 'B H W 3']:
        """Returns the fake example: as `corrupt`, and in further `rounds` what came out is encoded and corrupted."""
        images = self.corrupt(phi, mask, train=train)
        for _ in range(self.rounds - 1):
            images = self.corrupt(self.encode(images), mask, train=train)
        return images

    def imagine(self, noise: Float[Array, 'B M N C'], *, train: bool = False) -> Float32[Array, 'B H W 3']:
        """Returns the fake example of a plain GAN: noise of the features' shape, decoded."""
        return self.gan(noise, train=train)[0]
