"""Stage 2: damage and repair make artifacts, and a discriminator learns features by spotting them.

Encoder and decoder are frozen, weights and statistics. The generator is the repair network alone; it and the
discriminator are updated in turn within one step.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from artifacts_jax.data import augment
from artifacts_jax.devices.parallel import accumulated, mean, total
from artifacts_jax.models import architecture, layers
from artifacts_jax.models.discriminator import FAKE, REAL
from artifacts_jax.pretraining import autoencoder, game, history, losses, optim
from artifacts_jax.training import keys
from artifacts_jax.training.state import State, select

NAME = 'artifacts'
REPLAYED = True  # by --replay
BASE = autoencoder  # the stage whose variables this one freezes
TINY = 1e-12  # less than any fraction of a batch
discriminator, evaluator, illustrator = game.discriminator, game.evaluator, game.illustrator


def plan(config: ConfigDict) -> tuple[int, int]:
    """Returns (steps, images in a global batch) of this stage."""
    return config.artifacts.steps, config.batch_size


def _optimiser(config):
    stage = config.artifacts
    return optim.adam(optim.schedule(stage.learning_rate, stage.steps, config), config)


def init_state(key, base: dict, *, config: ConfigDict) -> State:
    """Returns the state at step 0.

    Args:
      key: draws the weights of repair network and discriminator.
      base: the autoencoder's variables, frozen here; None makes a state without, to look at initial weights.
      config: the run's configuration.
    """
    generator_key, discriminator_key = jax.random.split(key)
    network, generator, size = config.artifacts.generator, architecture.make_generator(config), config.model.image_size
    mask = jnp.ones((1, *architecture.mask_grid(config), 1))
    code = jnp.zeros((*mask.shape[:3], config.model.encoder_widths[-1]))
    if network == 'gan':
        generated = generator.init(generator_key, code, method='imagine')
    else:
        generated = generator.init(generator_key, code, mask, method='corrupt')
    judged = architecture.make_discriminator(config).init(discriminator_key, jnp.zeros((1, size, size, 3)))
    variables = {
        kind: {**(base or {kind: {}})[kind], network: generated[kind].get(network, {}), 'discriminator': judged[kind]}
        for kind in judged
    }
    return begin(variables, config=config)


def begin(variables: dict, *, config: ConfigDict) -> State:
    """Returns the state at step 0 with given variables, such as tf1.convert returns.

    Args:
      variables: {'params': {network: tree}, 'batch_stats': {network: tree}}: 'encoder' and 'decoder', which are frozen,
        'repair' (or 'gan') and 'discriminator'.
      config: the run's configuration.
    """
    trained = (config.artifacts.generator, 'discriminator')
    state = State.create(
        select(variables, trained),
        {(name,): _optimiser(config) for name in trained},
        ema=config.optim.ema_decay > 0,
        frozen=select(variables, autoencoder.NETWORKS),
    )
    return state.replace(history=history.empty(config))


def discriminator_terms(outputs, mask, *, config, axis_name):
    """Returns the discriminator's loss terms for its outputs on [real; fake] and the fakes' mask (section 2)."""
    logits, mask_logits = outputs
    real, fake = jnp.split(logits, 2)
    targets = jnp.concatenate([jnp.ones_like(mask), mask])
    mask_error = mean(losses.mask_loss(mask_logits, targets), axis_name)
    class_error = jnp.concatenate([losses.class_loss(real, REAL), losses.class_loss(fake, FAKE)])
    return {
        'loss/discriminator_class': mean(class_error, axis_name),
        'loss/discriminator_mask': config.artifacts.mask_weight * mask_error,
    }


def generator_terms(outputs, fake, images, mask, kept, *, config, axis_name):
    """Returns the generator's loss terms: the class loss with swapped labels, and the mean error over kept pixels.

    `kept` is the fraction of the whole batch's mask entries that are kept, of which this may be a part.
    With `generator_objective='reference'` also the discriminator's terms, which the 2018 code leaves in: on a fake
    the two class losses together are least at a probability of 1/2.
    """
    real_logits, fake_logits = jnp.split(outputs[0], 2)
    # The real half has no path to the generator but through the batch statistics; the 2018 code counts it too.
    class_error = jnp.concatenate([losses.class_loss(real_logits, FAKE), losses.class_loss(fake_logits, REAL)])
    errors = layers.upsample_nearest(mask, images.shape[1:3]) * losses.squared_error(fake, images)
    pixel_error = mean(errors, axis_name) / (images.shape[-1] * jnp.maximum(kept, TINY))
    terms = {
        'loss/generator_class': mean(class_error, axis_name),
        'loss/generator_pixel': config.artifacts.pixel_weight * pixel_error,
    }
    if config.artifacts.generator_objective == 'reference':
        leak = discriminator_terms(outputs, mask, config=config, axis_name=axis_name)
        terms['loss/generator_leak'] = sum(leak.values())
    return terms


def train_step(state: State, batch: dict, key, *, config: ConfigDict, axis_name=None):
    """One update of the discriminator and one of the generator, on augmented images and random masks.

    Args:
      state: with the networks 'discriminator' and 'repair' (or 'gan'), and the frozen 'encoder' and 'decoder'.
      batch: 'image' uint8 [B, H, W, 3] and 'index' int32 [B], this device's part of the global batch.
      key: the stage's key.
      config: the run's configuration.
      axis_name: the devices' axis under pmap.

    Returns:
      (state, {name: scalar}).
    """
    augment_keys, mask_keys, *other_keys = keys.example_keys(key, state.step, batch['index'], 8)
    images = augment.training_view(config, augment_keys, batch['image'])
    mask = layers.spatial_mask(mask_keys, architecture.mask_grid(config), config.artifacts.drop_rate)
    return update(state, images, mask, other_keys, batch['index'], config=config, axis_name=axis_name)


def update(state: State, images, mask, example_keys=None, index=None, *, config: ConfigDict, axis_name=None):
    """One update of the discriminator and one of the generator.

    With `updates='alternate'` the generator plays against the just-updated discriminator, on the same fakes: the
    generator runs once, the discriminator twice. With 'simultaneous' both share one pass of the discriminator, but for
    a history, of which the discriminator's pass alone sees earlier fakes.
    The discriminator always sees [real; fake] as one batch, whose statistics conv5 and fc1 are normalised by (as
    in the 2018 code); its running averages follow its own update's pass alone. With `accumulate` such a batch is a
    part, and the running averages follow the mean over the parts.

    Args:
      state: as of `train_step`.
      images: [B, H, W, 3] in [-1, 1].
      mask: [B, M, N, 1], 1 kept, 0 dropped.
      example_keys: six [B] arrays of PRNG keys: for dropout of reals and of fakes in the discriminator's pass, the
        same in the generator's, for a GAN's noise, and for the history; None is without dropout, and without those two.
      index: [B] int32, the examples' positions in the global batch, if there is a history.
      config: the run's configuration.
      axis_name: the devices' axis under pmap.

    Returns:
      (state, {name: scalar}).
    """
    network, alternate = config.artifacts.generator, config.artifacts.updates == 'alternate'
    generator = architecture.make_generator(config, axis_name)
    judge_model = architecture.make_discriminator(config, axis_name)
    batch = images, mask, example_keys or [None] * 6, index
    kept = total(mean(mask, axis_name), axis_name)
    entered = state.step * (total(len(images), axis_name) // 2)

    def examples(part):
        """Returns the real and fake examples, how a gradient goes from the fakes to the generator, and statistics."""
        images, mask, (*_, noise_keys, _), _ = part
        phi = generator.apply(state.frozen, images, method='encode')
        real = game.real_examples(generator, state.frozen, images, phi, config)

        def make_fake(params):
            variables = {
                'params': {**state.frozen['params'], network: params},
                'batch_stats': {**state.frozen['batch_stats'], network: state.batch_stats[network]},
            }
            fake, updates = game.fake_examples(
                generator, variables, phi, mask, noise_keys, config, train=True, mutable=['batch_stats']
            )
            return fake, updates['batch_stats'].get(network, {})

        return real, *jax.vjp(make_fake, state.params[network], has_aux=True)

    def judge(params, real, fake, dropout_keys):
        (outputs, _), updates = judge_model.apply(
            {'params': params, 'batch_stats': state.batch_stats['discriminator']},
            (real, fake),
            train=True,
            dropout_keys=None if dropout_keys[0] is None else jnp.concatenate(dropout_keys),
            mutable=['batch_stats'],
        )
        return outputs, updates['batch_stats']

    def discriminator_side(part, real, fake):
        """Returns ((gradient, values, statistics), (outputs, how a gradient goes back to parameters and fakes))."""
        _, mask, (*dropout_keys, _, history_keys), index = part
        recall = partial(history.recall, state.history, entered, history_keys, index)
        _, judged_mask = recall(fake, mask)
        outputs, pull, statistics = jax.vjp(
            lambda params, fake: judge(params, real, recall(fake, mask)[0], dropout_keys[:2]),
            state.params['discriminator'],
            fake,
            has_aux=True,
        )

        def loss(outputs):
            terms = discriminator_terms(outputs, judged_mask, config=config, axis_name=axis_name)
            return sum(terms.values()), {**terms, **_accuracy(outputs, judged_mask, axis_name)}

        cotangent, values = jax.grad(loss, has_aux=True)(outputs)
        return (pull(cotangent)[0], values, statistics), (outputs, pull)

    def generator_side(part, made, opponent, judged=None):
        """Returns (gradient, values, statistics, fakes for a history) against a discriminator's parameters."""
        images, mask, (*dropout_keys, _, _), _ = part
        real, fake, pull_fake, statistics = made
        outputs, pull, *_ = judged or jax.vjp(
            lambda params, fake: judge(params, real, fake, dropout_keys[2:]), opponent, fake, has_aux=True
        )

        def loss(outputs, fake):
            terms = generator_terms(outputs, fake, images, mask, kept, config=config, axis_name=axis_name)
            return sum(terms.values()), terms

        (cotangent, direct), values = jax.grad(loss, (0, 1), has_aux=True)(outputs, fake)
        (gradient,) = pull_fake(direct + pull(cotangent)[1])
        return gradient, values, statistics, None if state.history is None else fake

    def both_sides(part):
        made = examples(part)
        side, judged = discriminator_side(part, *made[:2])
        if state.history is not None:
            judged = None  # the generator is judged by its own fakes, not by earlier ones
        return side, generator_side(part, made, state.params['discriminator'], judged)

    def descend(state, name, gradient, readers=()):
        """Returns (state, the L2 term, the norm of the other terms' gradient) after an update of one network.

        `readers` are further results that depend on the network's old parameters.
        """
        gradient = total(gradient, axis_name)
        decay, decay_gradient = jax.value_and_grad(lambda p: config.optim.l2 * losses.l2(p))(state.params[name])
        norm = optim.norm(gradient)
        # XLA copies parameters first, unless it knows that all which reads them comes before their update. What is not
        # finite in one network should not reach the other.
        last = 0 * jnp.nan_to_num(decay + norm + sum(readers))
        gradient = jax.tree.map(lambda g, d: g + d + last, gradient, decay_gradient)
        return state.descend(_optimiser(config), {name: gradient}), decay, norm

    if alternate:
        made = examples(batch) if config.accumulate == 1 else None  # those of several parts are made again, not kept
        side = accumulated(
            lambda part: discriminator_side(part, *(made or examples(part))[:2])[0], config.accumulate, batch
        )
        new, decay, norm = descend(state, 'discriminator', side[0])
        other = accumulated(
            lambda part: generator_side(part, made or examples(part), new.params['discriminator']),
            config.accumulate,
            batch,
        )
    else:
        side, other = accumulated(both_sides, config.accumulate, batch)
        new, decay, norm = descend(state, 'discriminator', side[0], [optim.norm(other[0])])
    new, generator_decay, generator_norm = descend(new, network, other[0])
    _, values, discriminator_stats = side
    _, generator_values, generator_stats, fake = other

    new = new.replace(
        step=state.step + 1,
        batch_stats={network: generator_stats, 'discriminator': discriminator_stats},
        ema=optim.moving_average(state.ema, new.params, config.optim.ema_decay, state.step),
        history=history.remember(state.history, entered, fake, mask, axis_name=axis_name),
    )
    return new, {
        **total({**values, **generator_values}, axis_name),
        'loss/discriminator_l2': decay,
        'loss/generator_l2': generator_decay,
        'grad_norm/discriminator': norm,
        f'grad_norm/{network}': generator_norm,
    }


def _accuracy(outputs, mask, axis_name):
    """Returns the shares of the fractions of real and fake images, and fakes' mask entries, that are told rightly."""
    (real, fake), mask_logits = jnp.split(outputs[0].argmax(-1), 2), jnp.split(outputs[1], 2)[1]
    return {
        'accuracy/real': mean((real == REAL).astype(jnp.float32), axis_name),
        'accuracy/fake': mean((fake == FAKE).astype(jnp.float32), axis_name),
        'accuracy/mask': mean(((mask_logits > 0) == (mask > 0)).astype(jnp.float32), axis_name),
    }
