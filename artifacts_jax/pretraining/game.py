"""The game of the artifacts stage, as the paper has it (section 3): examples are made, judged, and both sides learn.

A `Game` is a state's networks at one step. Its methods are pure functions of a part of the batch, in the order in which
they are called: `examples`, `judge`, `discriminator_turn`, `generator_turn`. Gradients go back by hand, from the losses
to the discriminator's outputs, from there to its parameters and the fakes, from there to the generator's: so that each
network runs forward once, whichever side asks.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import mean
from artifacts_jax.models import architecture
from artifacts_jax.models.discriminator import FAKE, REAL
from artifacts_jax.models.generator import Generator
from artifacts_jax.pretraining import history, losses
from artifacts_jax.training.state import State

Keys = Key[Array, ' B']


class ExampleKeys(NamedTuple):
    """A key of every example for each thing that a step draws, in the order of `keys.example_keys`."""

    augment: Keys  # the view of the image
    mask: Keys  # what is dropped
    real_dropout: Keys  # the discriminator's turn, where it sees the real example
    fake_dropout: Keys  # the same, the fake
    generator_real_dropout: Keys  # the generator's turn, where the discriminator sees the real example
    generator_fake_dropout: Keys  # the same, the fake
    noise: Keys  # what a GAN makes the fake of
    history: Keys  # which earlier fake takes its place

    @property
    def dropout(self) -> Key[Array, ' E']:
        """Those of the discriminator's turn, for [real; fake]."""
        return jnp.concatenate([self.real_dropout, self.fake_dropout])

    @property
    def generator_dropout(self) -> Key[Array, ' E']:
        """Those of the generator's turn."""
        return jnp.concatenate([self.generator_real_dropout, self.generator_fake_dropout])


class Batch(NamedTuple):
    """What a step, or a part of it, is played on."""

    images: Float[Array, 'B H W 3']  # in [-1, 1]
    mask: Float[Array, 'B M N 1']  # 1 kept, 0 dropped
    keys: ExampleKeys
    index: Int[Array, ' B']  # the examples' positions in the global batch


class Examples(NamedTuple):
    """Real and fake examples, and what the generator learns by."""

    real: Float[Array, 'B H W 3']  # in [-1, 1]
    fake: Float[Array, 'B H W 3']  # the same
    pull: Callable  # from a gradient of the fakes to a tuple with that of the generator's parameters
    batch_stats: PyTree  # the generator's running averages after it has made them


class Judgement(NamedTuple):
    """What the discriminator says of [real; fake], and what both sides learn by."""

    outputs: losses.Outputs
    pull: Callable  # from a gradient of the outputs to those of (the discriminator's parameters, the fakes)
    batch_stats: PyTree  # the discriminator's running averages after it


class Played(NamedTuple):
    """The game as it stands, of which nobody learns: in evaluation mode, real examples and fakes judged apart."""

    phi: Float[Array, 'B M N C']  # the features of the images
    real: Float[Array, 'B H W 3']  # in [-1, 1]
    fake: Float[Array, 'B H W 3']  # the same
    of_real: losses.Outputs  # what the discriminator says of the real examples
    of_fake: losses.Outputs  # and of the fakes


class Ratio(NamedTuple):
    """A value whose two terms are each a share of a mean over the batch; they are divided when they are whole."""

    part: Float[Array, '']
    whole: Float[Array, '']

    def value(self) -> Float[Array, '']:
        """Returns the ratio, 0 where the whole is nothing."""
        return self.part / jnp.maximum(self.whole, losses.TINY)


class Turn(NamedTuple):
    """What a side has learned from a part of the batch: this device's shares of gradients and values."""

    gradient: PyTree  # of its parameters
    values: dict  # {name: scalar or Ratio}
    batch_stats: PyTree  # its running averages
    fake: Float[Array, 'B H W 3'] | None = None  # the generator's fakes, if there is a history to keep them


@dataclasses.dataclass(frozen=True)
class Game:
    """The game at one step.

    Args:
      state: with the networks 'discriminator' and 'repair' (or 'gan'), and the frozen 'encoder' and 'decoder'.
      kept: the fraction of the whole batch's mask entries that are kept; a part may have another.
      entered: how many fakes have ever entered the history.
      config: the run's configuration.
      axis_name: the devices' axis under pmap.
    """

    state: State
    kept: Float[Array, '']
    entered: Int[Array, '']
    config: ConfigDict
    axis_name: str | None

    def examples(self, batch: Batch) -> Examples:
        """Makes the real examples, by the frozen autoencoder, and the fakes, damaged and repaired on the way."""
        state, network = self.state, self.config.artifacts.generator
        generator = architecture.make_generator(self.config, self.axis_name)
        phi = generator.apply(state.frozen, batch.images, method='encode')
        real = real_examples(generator, state.frozen, batch.images, phi, self.config)

        def make(params):
            variables = {
                'params': {**state.frozen['params'], network: params},
                'batch_stats': {**state.frozen['batch_stats'], network: state.batch_stats[network]},
            }
            fake, updates = fake_examples(
                generator,
                variables,
                phi,
                batch.mask,
                batch.keys.noise,
                self.config,
                train=True,
                mutable=['batch_stats'],
            )
            return fake, updates['batch_stats'].get(network, {})

        return Examples(real, *jax.vjp(make, state.params[network], has_aux=True))

    def judge(
        self,
        params: dict,
        real: Float[Array, 'B H W 3'],
        fake: Float[Array, 'B H W 3'],
        dropout_keys: Key[Array, ' E'],
    ) -> Judgement:
        """Shows [real; fake] to a discriminator as one batch, whose statistics normalise conv5 and fc1."""
        discriminator = architecture.make_discriminator(self.config, self.axis_name)
        batch_stats = self.state.batch_stats['discriminator']

        def apply(params, fake):
            (outputs, _), updates = discriminator.apply(
                {'params': params, 'batch_stats': batch_stats},
                (real, fake),
                train=True,
                dropout_keys=dropout_keys,
                mutable=['batch_stats'],
            )
            return outputs, updates['batch_stats']

        return Judgement(*jax.vjp(apply, params, fake, has_aux=True))

    def discriminator_turn(self, batch: Batch, examples: Examples) -> tuple[Turn, Judgement]:
        """The discriminator learns to tell real from fake, and where the fakes were damaged."""
        state = self.state
        fake, mask = history.recall(
            state.history, self.entered, batch.keys.history, batch.index, examples.fake, batch.mask
        )
        judged = self.judge(state.params['discriminator'], examples.real, fake, batch.keys.dropout)

        def loss(outputs):
            terms = losses.discriminator_terms(outputs, mask, config=self.config, axis_name=self.axis_name)
            return sum(terms.values()), {**terms, **_found(outputs, mask, self.axis_name)}

        gradient, values = jax.grad(loss, has_aux=True)(judged.outputs)
        return Turn(judged.pull(gradient)[0], values, judged.batch_stats), judged

    def generator_turn(self, batch: Batch, examples: Examples, judged: Judgement) -> Turn:
        """The generator learns to pass for real before a discriminator, and to leave what is kept as it was."""

        def loss(outputs, fake):
            terms = losses.generator_terms(
                outputs, fake, batch.images, batch.mask, self.kept, config=self.config, axis_name=self.axis_name
            )
            return sum(terms.values()), terms

        (gradient, direct), values = jax.grad(loss, (0, 1), has_aux=True)(judged.outputs, examples.fake)
        (gradient,) = examples.pull(direct + judged.pull(gradient)[1])
        return Turn(gradient, values, examples.batch_stats, None if self.state.history is None else examples.fake)


def play(
    variables: dict,
    images: Float[Array, 'B H W 3'],
    mask: Float[Array, 'B M N 1'],
    noise_keys: Keys,
    config: ConfigDict,
) -> Played:
    """Plays without learning.

    Args:
      variables: of all networks, {'params': {network: tree}, 'batch_stats': {network: tree}}.
      images: in [-1, 1].
      mask: 1 kept, 0 dropped.
      noise_keys: that a GAN draws its fakes by.
      config: the run's configuration.
    """
    generator, judge = architecture.make_generator(config), architecture.make_discriminator(config)
    phi = generator.apply(variables, images, method='encode')
    real = real_examples(generator, variables, images, phi, config)
    fake = fake_examples(generator, variables, phi, mask, noise_keys, config)
    (of_real, _), (of_fake, _) = (judge.apply(discriminator(variables), examples) for examples in (real, fake))
    return Played(phi, real, fake, of_real, of_fake)


def discriminator(variables: dict) -> dict:
    """Returns the discriminator's part of a stage's variables, {'params': ..., 'batch_stats': ...}."""
    return {kind: tree['discriminator'] for kind, tree in variables.items()}


def real_examples(
    generator: Generator,
    variables: dict,
    images: Float[Array, 'B H W 3'],
    phi: Float[Array, 'B M N C'],
    config: ConfigDict,
) -> Float[Array, 'B H W 3']:
    """Returns the real examples, of the images or of their features phi.

    They go through the autoencoder as often as the fakes, whose `rounds` its noise would else give away.
    """
    if config.artifacts.real == 'input':
        return images
    real = generator.apply(variables, phi, method='decode')
    for _ in range(config.artifacts.rounds - 1):
        real = generator.apply(variables, real, method='reconstruct')
    return real


def fake_examples(
    generator: Generator,
    variables: dict,
    phi: Float[Array, 'B M N C'],
    mask: Float[Array, 'B M N 1'],
    noise_keys: Keys,
    config: ConfigDict,
    **options,
) -> Float[Array, 'B H W 3'] | tuple[Float[Array, 'B H W 3'], dict]:
    """Returns the fake examples for features phi and mask; a GAN's are drawn by the keys alone.

    With `mutable` among the options, which are of Flax's `apply`, returns (fakes, what has changed).
    """
    if config.artifacts.generator == 'gan':
        noise = jax.vmap(lambda key: jax.random.normal(key, phi.shape[1:], phi.dtype))(noise_keys)
        return generator.apply(variables, noise, method='imagine', **options)
    return generator.apply(variables, phi, mask, method='fake', **options)


def rightly_told(
    real_logits: Float[Array, 'B 2'],
    fake_logits: Float[Array, 'B 2'],
    mask_logits: Float[Array, 'B M N 1'],
    mask: Float[Array, 'B M N 1'],
) -> dict[str, Bool[Array, 'B ...']]:
    """Returns where the discriminator is right: of each real example, each fake, and each entry of the fakes' masks."""
    return {
        'accuracy/real': real_logits.argmax(-1) == REAL,
        'accuracy/fake': fake_logits.argmax(-1) == FAKE,
        'accuracy/mask': (mask_logits > 0) == (mask > 0),
    }


def _found(outputs, mask, axis_name):
    """Returns what the discriminator tells rightly, and what it thinks of the fakes' mask entries: shares of means.

    'mask/on_kept' and 'mask/on_dropped' are its mean probabilities that an entry was kept, of those that were and of
    those that were not: equal as long as it has not found the mask.
    """
    (real, fake), (_, mask_logits) = (jnp.split(x, 2) for x in outputs)
    right, probability = rightly_told(real, fake, mask_logits, mask), jax.nn.sigmoid(mask_logits)
    return {
        **{name: mean(x.astype(jnp.float32), axis_name) for name, x in right.items()},
        'mask/on_kept': Ratio(mean(probability * mask, axis_name), mean(mask, axis_name)),
        'mask/on_dropped': Ratio(mean(probability * (1 - mask), axis_name), mean(1 - mask, axis_name)),
    }
