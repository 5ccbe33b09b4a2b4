"""Encoder, decoder, repair network and discriminator: pure Flax modules returning (output, {name: features}).

Images are [B, H, W, 3] in [-1, 1]. Architectures: section 3 of the paper and the authors' 2019 STL-10 code.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from artifacts_jax import layers, products

CHANNEL_MEANS = (123.68, 116.78, 103.94)  # of ImageNet, RGB in [0, 255]
FAKE, REAL = 0, 1  # classes of the discriminator


class Encoder(nn.Module):
    """(w0)3c1-(w1)2c2-(w2)2c2-...: images to phi [B, H / 2^n, W / 2^n, w_n], n = len(widths) - 1."""

    widths: tuple[int, ...]
    kernel: int = 2  # of the layers that halve the size
    products: bool = False  # whether to convolve by products.py
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train=False):
        """Returns (phi, {'layer1': activations, ...})."""
        x, features = images.astype(self.dtype), {}
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
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, phi, *, train=False, repair: Callable | None = None):
        """Decodes phi, [B, M, N, C].

        Args:
          phi: encoder features, damaged or not.
          train: normalise by the batch and update the running averages.
          repair: (n, activations) -> activations, called before each layer D_{n + 1}.

        Returns:
          (images [B, H, W, 3] float32, {'layer1': activations, ...}).
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
    """R(h, Omega) = h + (1 - Omega) * F([h, Omega]): changes dropped positions only. [B, H, W, C] -> the same."""

    feed_mask: bool = True  # whether F sees Omega
    products: bool = False  # whether to convolve by products.py
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, h, mask, *, train, gated=True):
        """Repairs h; `mask` [B, H, W, 1] has h's resolution. Not `gated`, it changes kept positions too."""
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
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Declares the layers."""
        self.layers = [
            RepairLayer(self.feed_mask, self.products, self.dtype, self.axis_name) for _ in range(self.depth)
        ]

    def __call__(self, n, h, mask, *, train, gated=True):
        """Applies R_{n + 1}, if there is one, to h [B, H, W, C]; `mask` [B, M, N, 1] is repeated to h's resolution."""
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
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    def setup(self):
        """Declares the networks; Flax makes the parameters of those that are used."""
        depth = len(self.widths) if self.repair_layers == -1 else self.repair_layers
        self.encoder = Encoder(self.widths, self.encoder_kernel, self.products, self.dtype, self.axis_name)
        self.decoder = Decoder(self.widths, self.upsampling, self.products, self.dtype, self.axis_name)
        self.repair = Repair(depth, self.feed_mask, self.products, self.dtype, self.axis_name)
        self.gan = Decoder(self.widths, self.upsampling, self.products, self.dtype, self.axis_name)

    def reconstruct(self, images, *, train=False):
        """Returns the autoencoder's output D(E(images)), [B, H, W, 3]."""
        return self.decode(self.encoder(images, train=train)[0], train=train)

    def encode(self, images):
        """Returns phi [B, M, N, C] with frozen statistics."""
        return self.encoder(images)[0]

    def decode(self, phi, *, train=False):
        """Returns the real example, D(phi): no damage, no repair."""
        return self.decoder(phi, train=train)[0]

    def damaged(self, phi, mask):
        """Returns D(damaged phi) without repair, for figures."""
        return self.decode(layers.damage(phi, mask, self.filter_size))

    def corrupt(self, phi, mask, *, train=False, gated=True):
        """Returns phi damaged, then repaired before the layers of the frozen decoder.

        Args:
          phi: [B, M, N, C] frozen features.
          mask: [B, M, N, 1], 1 kept, 0 dropped.
          train: the repair network normalises by the batch; encoder and decoder never do here.
          gated: False lets the repair also change kept positions, for figures.

        Returns:
          Images [B, H, W, 3] in [-1, 1].
        """

        def repair(n, h):
            return self.repair(n, h, mask, train=train, gated=gated and self.gated)

        return self.decoder(layers.damage(phi, mask, self.filter_size), repair=repair)[0]

    def fake(self, phi, mask, *, train=False):
        """Returns the fake example: as `corrupt`, and in further `rounds` what came out is encoded and corrupted."""
        images = self.corrupt(phi, mask, train=train)
        for _ in range(self.rounds - 1):
            images = self.corrupt(self.encode(images), mask, train=train)
        return images

    def imagine(self, noise, *, train=False):
        """Returns the fake example of a plain GAN: noise [B, M, N, C], of the features' shape, decoded."""
        return self.gan(noise, train=train)[0]


class Trunk(nn.Module):
    """AlexNet up to conv5, the part whose features are transferred.

    Pooling (3x3/2) and local response normalisation follow conv1 and conv2. At full size conv5 is [B, H / 16, W / 16,
    256]: the grid of the mask.
    """

    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    kernels: tuple[int, ...] = (11, 5, 3, 3, 3)
    conv1_stride: int = 4
    groups: int = 2
    products: bool = False  # whether to convolve by products.py
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train=False):
        """Returns (conv5 activations, {'conv1': ..., 'conv5': ...}), all after ReLU and before pooling.

        Args:
          images: [B, H, W, 3] in [-1, 1], or a tuple of such parts of one batch: the features are of the whole, and a
            gradient with respect to one part costs nothing for the others up to conv5.
          train: normalise conv5 by the batch and update its running averages.
        """
        parts, features = images if isinstance(images, tuple) else (images,), {}
        parts = [preprocess(x).astype(self.dtype) for x in parts]
        for n, (width, kernel) in enumerate(zip(self.widths, self.kernels), start=1):
            convolve = layers.GroupedConv(
                width,
                kernel,
                stride=self.conv1_stride if n == 1 else 1,
                groups=self.groups if n in (2, 4, 5) else 1,
                use_bias=n != 5,
                products=self.products,
                dtype=self.dtype,
                name=f'conv{n}',
            )
            parts = [convolve(x) for x in parts]
            if n == 5:  # whose statistics are the whole batch's
                norm5 = layers.BatchNorm(False, self.dtype, self.axis_name, name='norm5')
                parts = [norm5(jnp.concatenate(parts), train=train)]
            parts = [nn.relu(x) for x in parts]
            features[f'conv{n}'] = jnp.concatenate(parts)
            if n <= 2:
                parts = [layers.local_response_norm(layers.max_pool(x)) for x in parts]
        return features['conv5'], features


class Discriminator(nn.Module):
    """The trunk with a class head (real or repaired) and a head that predicts the mask."""

    trunk: Trunk
    hidden: int = 4096
    dropout: float = 0.5
    products: bool = False  # whether to multiply by products.py

    @nn.compact
    def __call__(self, images, *, train=False, dropout_keys=None):
        """Judges images [B, H, W, 3] in [-1, 1].

        Args:
          images: real and repaired images, one array or a tuple of parts (see `Trunk`).
          train: normalise conv5 and the fully connected layer by the batch, and update the running averages.
          dropout_keys: [B] PRNG keys; None switches dropout off.

        Returns:
          ((class logits [B, 2], mask logits [B, M, N, 1]) float32, {'conv1': activations, ...}).
        """
        dtype = self.trunk.dtype
        conv5, features = self.trunk(images, train=train)
        mask_logits = nn.Conv(1, (3, 3), kernel_init=layers.glorot_init, dtype=dtype, name='mask')(conv5)
        x = nn.DenseGeneral(
            self.hidden,
            axis=(1, 2, 3),
            use_bias=False,
            kernel_init=_whole_grid_init(conv5.shape[1:], self.hidden),
            dtype=dtype,
            dot_general=products.dot_general if self.products else None,
            name='fc1',
        )(conv5)
        x = nn.relu(layers.BatchNorm(False, dtype, self.trunk.axis_name, name='norm1')(x, train=train))
        if dropout_keys is not None:
            x = layers.dropout(dropout_keys, x, self.dropout)
        logits = nn.Dense(2, kernel_init=layers.glorot_init, dtype=dtype, name='fc2')(x)
        return (logits.astype(jnp.float32), mask_logits.astype(jnp.float32)), features


def _whole_grid_init(grid, hidden):
    """Glorot's distribution with the fans of a convolution over the whole grid, as which the 2018 code makes fc1."""

    def init(key, shape, dtype):
        return layers.glorot_init(key, (*grid, hidden), dtype).reshape(shape)

    return init


def preprocess(images):
    """Maps images in [-1, 1] to AlexNet's input: [0, 255] minus the channel means."""
    return images * 127.5 + 127.5 - jnp.array(CHANNEL_MEANS, images.dtype).reshape(1, 1, 1, 3)


def make_generator(config: ConfigDict, axis_name: str | None = None) -> Generator:
    """Makes the generator that a config describes; `axis_name` names the devices under pmap."""
    model, artifacts = config.model, config.artifacts
    return Generator(
        widths=tuple(model.encoder_widths),
        encoder_kernel=model.encoder_kernel,
        upsampling=model.upsampling,
        filter_size=artifacts.filter_size,
        repair_layers=artifacts.repair_layers,
        feed_mask=artifacts.feed_mask,
        gated=artifacts.gated,
        rounds=artifacts.rounds,
        products=_products(config),
        dtype=jnp.dtype(config.dtype),
        axis_name=axis_name,
    )


def make_encoder(config: ConfigDict) -> Encoder:
    """Makes the encoder alone that a config describes."""
    widths, kernel = tuple(config.model.encoder_widths), config.model.encoder_kernel
    return Encoder(widths, kernel, _products(config), jnp.dtype(config.dtype))


def make_trunk(config: ConfigDict, axis_name: str | None = None) -> Trunk:
    """Makes the discriminator's trunk that a config describes; `axis_name` names the devices under pmap."""
    model = config.model
    return Trunk(
        widths=tuple(model.widths),
        kernels=tuple(model.kernels),
        conv1_stride=model.conv1_stride,
        groups=model.groups,
        products=_products(config),
        dtype=jnp.dtype(config.dtype),
        axis_name=axis_name,
    )


def make_discriminator(config: ConfigDict, axis_name: str | None = None) -> Discriminator:
    """Makes the discriminator that a config describes; `axis_name` names the devices under pmap."""
    model = config.model
    return Discriminator(make_trunk(config, axis_name), model.hidden, model.dropout, _products(config))


def _products(config):
    if config.convolutions == 'auto':
        return jax.default_backend() == 'cpu'
    return config.convolutions == 'products'


def template(config: ConfigDict) -> dict:
    """Returns the shapes of all variables of a config's networks, with nothing computed.

    {'params': {network: tree}, 'batch_stats': {network: tree}} of 'encoder', 'decoder', 'repair' and 'discriminator'.
    """
    size, grid = config.model.image_size, mask_grid(config)

    def init(key):
        images, mask = jnp.zeros((1, size, size, 3)), jnp.ones((1, *grid, 1))
        phi = jnp.zeros((1, *grid, config.model.encoder_widths[-1]))
        generator = make_generator(config)
        autoencoder = generator.init(key, images, method='reconstruct')
        generated = generator.init(key, phi, mask, method='corrupt')
        judged = make_discriminator(config).init(key, images)
        return {
            kind: {**autoencoder[kind], 'repair': generated[kind].get('repair', {}), 'discriminator': judged[kind]}
            for kind in judged
        }

    return jax.eval_shape(init, jax.random.key(0))


def mask_grid(config: ConfigDict) -> tuple[int, int]:
    """Returns (rows, columns) of the mask: the encoder's grid."""
    side = config.model.image_size // 2 ** (len(config.model.encoder_widths) - 1)
    return side, side
