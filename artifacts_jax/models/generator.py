"""Encoder, decoder and repair network, and the generator that contains them: pure Flax modules.

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
    kernel: int = 2  # kernel size of the layers that halve the resolution
    products: bool = False  # whether convolutions are computed as matrix products (products.py)
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
    """(w_{n-1})3rc2-...-(w0)3rc2-(3)3c1, rc = bilinear upsampling by 2 and a convolution: phi to images."""

    widths: tuple[int, ...]
    upsampling: str = 'half_pixel'
    products: bool = False  # whether convolutions are computed as matrix products (products.py)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, phi: Float[Array, 'B M N C'], *, train: bool = False, repair: Callable | None = None
    ) -> tuple[Float32[Array, 'B H W 3'], dict[str, Float[Array, 'B _ _ _']]]:
        """Decodes phi.

        Args:
          phi: encoder features, with or without damage.
          train: whether batch norm uses the statistics of the batch, which also updates the running averages.
          repair: function (n, activations) -> activations, called before each layer D_{n + 1}.

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
        to_rgb = nn.Conv(
            3,
            (3, 3),
            kernel_init=layers.he_init,
            dtype=self.dtype,
            conv_general_dilated=products.convolve if self.products else None,
            name=last,
        )
        features[last] = images = jnp.tanh(to_rgb(x).astype(jnp.float32))
        return images, features


class RepairLayer(nn.Module):
    """R(h, Omega) = h + (1 - Omega) * F([h, Omega]): changes dropped positions only."""

    feed_mask: bool = True  # whether Omega is an input of F
    products: bool = False  # whether convolutions are computed as matrix products (products.py)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, h: Float[Array, 'B H W C'], mask: Float[Array, 'B H W 1'], *, train: bool, gated: bool = True
    ) -> Float[Array, 'B H W C']:
        """Returns the repaired h. With gated=False, kept positions are changed, too."""
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
    products: bool = False  # whether convolutions are computed as matrix products (products.py)
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
        """Applies R_{n + 1} to h, if this layer exists. The mask is upsampled to the resolution of h."""
        if n >= self.depth:
            return h
        return self.layers[n](h, layers.upsample_nearest(mask, h.shape[1:3]), train=train, gated=gated)


class Generator(nn.Module):
    """Encoder, decoder and repair network, with methods that create the real and fake images of the discriminator.

    Parameters and statistics have the branches 'encoder', 'decoder' and 'repair'. The autoencoder stage trains the
    first two. The artifacts stage freezes them and trains the third. For the GAN baseline, the branch 'gan' is the
    generator of a plain GAN: a decoder of noise, instead of damage and repair.
    """

    widths: tuple[int, ...]
    encoder_kernel: int = 2
    upsampling: str = 'half_pixel'
    filter_size: int = 3  # size of the averaging filter of the damage
    repair_layers: int = -1  # number of repair layers, before the first decoder layers; -1: before every layer
    feed_mask: bool = True
    gated: bool = True
    rounds: int = 1  # how often damage and repair are applied
    products: bool = False  # whether convolutions are computed as matrix products (products.py)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Declares the networks; Flax creates parameters only for those that a method uses."""
        depth = len(self.widths) if self.repair_layers == -1 else self.repair_layers
        self.encoder = Encoder(self.widths, self.encoder_kernel, self.products, self.dtype, self.axis_name)
        self.decoder = Decoder(self.widths, self.upsampling, self.products, self.dtype, self.axis_name)
        self.repair = Repair(depth, self.feed_mask, self.products, self.dtype, self.axis_name)
        self.gan = Decoder(self.widths, self.upsampling, self.products, self.dtype, self.axis_name)

    def reconstruct(self, images: Images, *, train: bool = False) -> Float32[Array, 'B H W 3']:
        """Returns the autoencoder's output D(E(images))."""
        return self.decode(self.encoder(images, train=train)[0], train=train)

    def encode(self, images: Images) -> Float[Array, 'B M N C']:
        """Returns phi, computed with the running averages of batch norm."""
        return self.encoder(images)[0]

    def decode(self, phi: Float[Array, 'B M N C'], *, train: bool = False) -> Float32[Array, 'B H W 3']:
        """Returns the real image, D(phi), without damage and repair."""
        return self.decoder(phi, train=train)[0]

    def decode_damaged(self, phi: Float[Array, 'B M N C'], mask: Mask) -> Float32[Array, 'B H W 3']:
        """Returns D(damaged phi), without repair, for figures."""
        return self.decode(layers.damage(phi, mask, self.filter_size))

    def corrupt(
        self, phi: Float[Array, 'B M N C'], mask: Mask, *, train: bool = False, gated: bool = True
    ) -> Float32[Array, 'B H W 3']:
        """Damages phi and decodes it; the repair layers run between the layers of the frozen decoder.

        Args:
          phi: features of the frozen encoder.
          mask: 1 for kept positions, 0 for dropped ones.
          train: whether batch norm of the repair network uses the statistics of the batch; encoder and decoder always
            use their running averages here.
          gated: False lets the repair layers also change kept positions, for figures.

        Returns:
          Images in [-1, 1].
        """

        def repair(n, h):
            return self.repair(n, h, mask, train=train, gated=gated and self.gated)

        return self.decoder(layers.damage(phi, mask, self.filter_size), repair=repair)[0]

    def fake(self, phi: Float[Array, 'B M N C'], mask: Mask, *, train: bool = False) -> Float32[Array, 'B H W 3']:
        """Returns the fake image: `corrupt`; each further round encodes the result and corrupts it again."""
        images = self.corrupt(phi, mask, train=train)
        for _ in range(self.rounds - 1):
            images = self.corrupt(self.encode(images), mask, train=train)
        return images

    def decode_noise(self, noise: Float[Array, 'B M N C'], *, train: bool = False) -> Float32[Array, 'B H W 3']:
        """Returns the fake image of a plain GAN: decoded noise, which has the shape of phi."""
        return self.gan(noise, train=train)[0]
