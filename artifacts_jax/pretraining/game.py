"""The adversarial training step of the `artifacts` stage (paper, section 3): generator against discriminator.

Adversarial training is a game of two players. A `Game` holds the networks and settings of one training step. The step
calls three methods of `Game`, in this order: `make_examples`, `compute_discriminator_gradients` (one forward pass) and
`compute_generator_gradients`. If the discriminator is updated between the last two, the step calls `run_discriminator`
with the new parameters. Methods are pure functions of one microbatch. Gradients are chained with explicit VJPs: from
the loss to the discriminator's outputs, from these to its parameters and the fakes, then to the generator's parameters.
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

TRAIN_OPTIONS = {'train': True, 'mutable': ['batch_stats']}  # options of Flax's `apply` in a training step
Keys = Key[Array, ' B']


class ExampleKeys(NamedTuple):
    """PRNG keys of a batch: one array per random operation, one key per example; made by keys.example_keys."""

    augment: Keys  # random crop, flip and colour jitter of the image
    mask: Keys  # which positions of the feature map are dropped
    real_dropout: Keys  # discriminator update: the discriminator's dropout on the real examples
    fake_dropout: Keys  # discriminator update: the discriminator's dropout on the fakes
    generator_real_dropout: Keys  # generator update: the discriminator's dropout on the real examples
    generator_fake_dropout: Keys  # generator update: the discriminator's dropout on the fakes
    noise: Keys  # input noise of the generator 'gan', a plain GAN without repair
    history: Keys  # which fake of the history buffer replaces the current one

    @property
    def discriminator_update_dropout(self) -> Key[Array, ' two_B']:
        """Dropout keys of the discriminator's update, [2B], B for the real images, then B for the fakes."""
        return jnp.concatenate([self.real_dropout, self.fake_dropout])

    @property
    def generator_update_dropout(self) -> Key[Array, ' two_B']:
        """Dropout keys of the generator's update, [2B], B for the real images, then B for the fakes."""
        return jnp.concatenate([self.generator_real_dropout, self.generator_fake_dropout])


class Batch(NamedTuple):
    """The inputs of one training step, or of one microbatch of it."""

    images: Float[Array, 'B H W 3']  # in [-1, 1]
    mask: Float[Array, 'B M N 1']  # 1 kept, 0 dropped
    keys: ExampleKeys
    index: Int[Array, ' B']  # type: ignore[assignment]  # positions in the global batch (hides the method tuple.index)


class Examples(NamedTuple):
    """Real and fake examples, and the VJP of the fakes with respect to the generator's parameters."""

    real: Float[Array, 'B H W 3']  # in [-1, 1]
    fake: Float[Array, 'B H W 3']  # in [-1, 1]
    vjp: Callable  # maps dL/dfake to (dL/dgenerator_params,)
    batch_stats: PyTree  # the generator's updated running averages of batch norm


class DiscriminatorPass(NamedTuple):
    """The discriminator's outputs for [real; fake], and their VJP, which both losses use."""

    outputs: losses.Outputs
    vjp: Callable  # maps dL/doutputs to (dL/ddiscriminator_params, dL/dfake)
    batch_stats: PyTree  # the discriminator's updated running averages of batch norm


class EvalOutputs(NamedTuple):
    """Outputs of all networks in evaluation mode; the discriminator gets real examples and fakes as two batches."""

    phi: Float[Array, 'B M N C']  # the encoder's features of the images
    real: Float[Array, 'B H W 3']  # in [-1, 1]
    fake: Float[Array, 'B H W 3']  # in [-1, 1]
    real_outputs: losses.Outputs  # the discriminator's outputs for the real examples
    fake_outputs: losses.Outputs  # the discriminator's outputs for the fakes


class Ratio(NamedTuple):
    """Numerator and denominator of a metric; both are summed over devices and microbatches before the division."""

    numerator: Float[Array, '']
    denominator: Float[Array, '']

    def compute(self) -> Float[Array, '']:
        """Returns numerator / denominator, 0 if the denominator is 0."""
        return self.numerator / jnp.maximum(self.denominator, losses.TINY)


class NetworkGradients(NamedTuple):
    """This device's share of the mean gradients and metrics of one network: psum them over the devices."""

    gradients: PyTree  # with respect to the network's parameters
    metrics: dict  # {name: scalar or Ratio}
    batch_stats: PyTree  # the network's updated running averages of batch norm
    fake: Float[Array, 'B H W 3'] | None = None  # fakes for the history buffer, None without a buffer


@dataclasses.dataclass(frozen=True)
class Game:
    """The networks and settings of one training step.

    Args:
      state: with the networks 'discriminator' and 'repair' (or 'gan'), and the frozen 'encoder' and 'decoder'.
      kept_fraction: the fraction of mask entries that are kept in the whole global batch, not only in a microbatch.
      num_added: the number of fakes added to the history buffer so far.
      config: the run's configuration.
      axis_name: the devices' axis under pmap.
    """

    state: State
    kept_fraction: Float[Array, '']
    num_added: Int[Array, '']
    config: ConfigDict
    axis_name: str | None

    def make_examples(self, batch: Batch) -> Examples:
        """Returns real examples from the frozen autoencoder, and fakes from damaged and repaired features."""
        state, name = self.state, self.config.artifacts.generator  # 'repair' or 'gan'
        generator = architecture.make_generator(self.config, self.axis_name)
        phi = generator.apply(state.frozen, batch.images, method='encode')
        real = make_real_examples(generator, state.frozen, batch.images, phi, self.config)

        def make_fakes(params):
            variables = {
                'params': {**state.frozen['params'], name: params},
                'batch_stats': {**state.frozen['batch_stats'], name: state.batch_stats[name]},
            }
            fake, updates = make_fake_examples(
                generator, variables, phi, batch.mask, batch.keys.noise, self.config, **TRAIN_OPTIONS
            )
            return fake, updates['batch_stats'].get(name, {})

        return Examples(real, *jax.vjp(make_fakes, state.params[name], has_aux=True))

    def run_discriminator(
        self,
        params: dict,
        real: Float[Array, 'B H W 3'],
        fake: Float[Array, 'B H W 3'],
        dropout_keys: Key[Array, ' two_B'],
    ) -> DiscriminatorPass:
        """Runs a discriminator on [real; fake] as one batch, so that batch norm uses the statistics of both."""
        discriminator = architecture.make_discriminator(self.config, self.axis_name)
        batch_stats = self.state.batch_stats['discriminator']

        def apply(params, fake):
            (outputs, _), updates = discriminator.apply(
                {'params': params, 'batch_stats': batch_stats},
                (real, fake),
                dropout_keys=dropout_keys,
                **TRAIN_OPTIONS,
            )
            return outputs, updates['batch_stats']

        return DiscriminatorPass(*jax.vjp(apply, params, fake, has_aux=True))

    def compute_discriminator_gradients(
        self, batch: Batch, examples: Examples
    ) -> tuple[NetworkGradients, DiscriminatorPass]:
        """Returns the gradients of the discriminator's loss (class and mask), and the forward pass they come from."""
        state = self.state
        fake, mask = history.sample(
            state.history, self.num_added, batch.keys.history, batch.index, examples.fake, batch.mask
        )
        params, dropout_keys = state.params['discriminator'], batch.keys.discriminator_update_dropout
        forward = self.run_discriminator(params, examples.real, fake, dropout_keys)

        def loss(outputs):
            terms = losses.discriminator_terms(outputs, mask, config=self.config, axis_name=self.axis_name)
            return sum(terms.values()), {**terms, **_compute_metrics(outputs, mask, self.axis_name)}

        grad_outputs, metrics = jax.grad(loss, has_aux=True)(forward.outputs)
        return NetworkGradients(forward.vjp(grad_outputs)[0], metrics, forward.batch_stats), forward

    def compute_generator_gradients(
        self, batch: Batch, examples: Examples, forward: DiscriminatorPass
    ) -> NetworkGradients:
        """Returns the gradients of the generator's loss: fool the discriminator, and keep undamaged pixels."""
        config, axis_name = self.config, self.axis_name

        def loss(outputs, fake):
            terms = losses.generator_terms(
                outputs, fake, batch.images, batch.mask, self.kept_fraction, config=config, axis_name=axis_name
            )
            return sum(terms.values()), terms

        (grad_outputs, grad_fake), metrics = jax.grad(loss, (0, 1), has_aux=True)(forward.outputs, examples.fake)
        (gradients,) = examples.vjp(grad_fake + forward.vjp(grad_outputs)[1])
        fake = None if self.state.history is None else examples.fake
        return NetworkGradients(gradients, metrics, examples.batch_stats, fake)


def compute_eval_outputs(
    variables: dict,
    images: Float[Array, 'B H W 3'],
    mask: Float[Array, 'B M N 1'],
    noise_keys: Keys,
    config: ConfigDict,
) -> EvalOutputs:
    """Returns the outputs of all networks in evaluation mode.

    Args:
      variables: of all networks, {'params': {network: tree}, 'batch_stats': {network: tree}}.
      images: in [-1, 1].
      mask: 1 kept, 0 dropped.
      noise_keys: PRNG keys of the GAN generator's input noise.
      config: the run's configuration.
    """
    generator, discriminator = architecture.make_generator(config), architecture.make_discriminator(config)
    phi = generator.apply(variables, images, method='encode')
    real = make_real_examples(generator, variables, images, phi, config)
    fake = make_fake_examples(generator, variables, phi, mask, noise_keys, config)
    real_outputs, fake_outputs = (
        discriminator.apply(select_discriminator(variables), examples)[0] for examples in (real, fake)
    )
    return EvalOutputs(phi, real, fake, real_outputs, fake_outputs)  # type: ignore[arg-type]  # `fake` is an array here


def select_discriminator(variables: dict) -> dict:
    """Returns the discriminator's variables, {'params': tree, 'batch_stats': tree}, from those of all networks."""
    return {kind: tree['discriminator'] for kind, tree in variables.items()}


def make_real_examples(
    generator: Generator,
    variables: dict,
    images: Float[Array, 'B H W 3'],
    phi: Float[Array, 'B M N C'],
    config: ConfigDict,
) -> Float[Array, 'B H W 3']:
    """Returns the real examples in [-1, 1]: images decoded from phi, or with artifacts.real='input' the input images.

    Decoded images pass through the autoencoder `artifacts.rounds` times, as the fakes do. Otherwise the discriminator
    could detect the fakes by the blur of the additional autoencoder passes.
    """
    if config.artifacts.real == 'input':
        return images
    real = generator.apply(variables, phi, method='decode')
    for _ in range(config.artifacts.rounds - 1):
        real = generator.apply(variables, real, method='reconstruct')
    return real


def make_fake_examples(
    generator: Generator,
    variables: dict,
    phi: Float[Array, 'B M N C'],
    mask: Float[Array, 'B M N 1'],
    noise_keys: Keys,
    config: ConfigDict,
    **options,
) -> Float[Array, 'B H W 3'] | tuple[Float[Array, 'B H W 3'], dict]:
    """Returns the fakes in [-1, 1] for features phi and a mask; a GAN generator uses only the noise keys.

    `options` are passed to Flax's `apply`. With `mutable` among them, returns (fakes, updated variables).
    """
    if config.artifacts.generator == 'gan':
        noise = jax.vmap(lambda key: jax.random.normal(key, phi.shape[1:], phi.dtype))(noise_keys)
        return generator.apply(variables, noise, method='decode_noise', **options)
    return generator.apply(variables, phi, mask, method='fake', **options)


def compare_predictions(
    real_logits: Float[Array, 'B 2'],
    fake_logits: Float[Array, 'B 2'],
    mask_logits: Float[Array, 'B M N 1'],
    mask: Float[Array, 'B M N 1'],
) -> dict[str, Bool[Array, 'B ...']]:
    """Returns whether the discriminator is correct, for each real example, each fake and each mask entry of a fake."""
    return {
        'accuracy/real': real_logits.argmax(-1) == REAL,
        'accuracy/fake': fake_logits.argmax(-1) == FAKE,
        'accuracy/mask': (mask_logits > 0) == (mask > 0),
    }


def _compute_metrics(outputs, mask, axis_name):
    """Returns the discriminator's accuracies and mean mask probabilities: this device's share, to be psummed.

    The discriminator predicts, for each position of a fake's mask, the probability that the position is kept.
    'mask/on_kept' is its mean over kept positions, 'mask/on_dropped' over dropped ones. Without skill, both are equal.
    """
    (real_logits, fake_logits), (_, mask_logits) = (jnp.split(x, 2) for x in outputs)
    correct, probability = compare_predictions(real_logits, fake_logits, mask_logits, mask), jax.nn.sigmoid(mask_logits)
    return {
        **{name: mean(x.astype(jnp.float32), axis_name) for name, x in correct.items()},
        'mask/on_kept': Ratio(mean(probability * mask, axis_name), mean(mask, axis_name)),
        'mask/on_dropped': Ratio(mean(probability * (1 - mask), axis_name), mean(1 - mask, axis_name)),
    }
