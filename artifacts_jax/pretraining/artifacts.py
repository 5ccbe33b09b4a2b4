"""Stage 2: damage and repair make artifacts, and a discriminator learns features by spotting them.

Encoder and decoder are frozen, weights and statistics. The generator is the repair network alone; it and the
discriminator are updated in turn within one step.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from artifacts_jax.data import augment
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices, accumulated, mean, total
from artifacts_jax.models import architecture, layers
from artifacts_jax.pretraining import autoencoder, game, held_out, history, optim
from artifacts_jax.training import keys, measure
from artifacts_jax.training.state import State, select

NAME = 'artifacts'
SPLITS = ('train', 'probe_train', 'test')  # of the data, that it needs
SUPPORTS_REPLAY = True  # by --replay
BASE = autoencoder  # the stage whose variables this one freezes
PROGRESS_METRICS = held_out.PROGRESS_METRICS
discriminator, make_evaluator, make_plotter = game.discriminator, held_out.make_evaluator, held_out.make_plotter


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the devices, or by the processes where features are watched."""
    devices.check_batch('batch_size', config.batch_size, config.accumulate)
    processes.check_batch('probe.batch_size', config.probe.batch_size)


def sample_batch(config: ConfigDict) -> dict:
    """Returns a host batch of noise, for the benchmark."""
    return measure.make_noise_batch(config)


def plan(config: ConfigDict) -> tuple[int, int]:
    """Returns (steps, images in a global batch) of this stage."""
    return config.artifacts.steps, config.batch_size


def _optimiser(config):
    stage = config.artifacts
    return optim.adam(optim.schedule(stage.learning_rate, stage.steps, config), config)


def init_state(key: Key[Array, ''], base: dict | None, *, config: ConfigDict) -> State:
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


def train_step(
    state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
) -> tuple[State, dict]:
    """One step of the game (game.py): an update of the discriminator and one of the generator.

    They play on augmented images and random masks. The discriminator always sees [real; fake] as one batch, whose
    statistics conv5 and fc1 are normalised by (as in the 2018 code); its running averages follow its own update's pass
    alone. With `accumulate` such a batch is a part, and the running averages follow the mean over the parts.

    Args:
      state: with the networks 'discriminator' and 'repair' (or 'gan'), and the frozen 'encoder' and 'decoder'.
      batch: 'image' uint8 [B, H, W, 3] and 'index' int32 [B], this device's part of the global batch.
      key: the stage's key.
      config: the run's configuration.
      axis_name: the devices' axis under pmap.

    Returns:
      (state, {name: scalar}).
    """
    drawn = game.ExampleKeys(*keys.example_keys(key, state.step, batch['index'], len(game.ExampleKeys._fields)))
    images = augment.training_view(config, drawn.augment, batch['image'])
    mask = layers.spatial_mask(drawn.mask, architecture.mask_grid(config), config.artifacts.drop_rate)
    whole = game.Batch(images, mask, drawn, jnp.asarray(batch['index']))
    kept = total(mean(mask, axis_name), axis_name)
    entered = state.step * (total(len(images), axis_name) // 2)
    play = game.Game(state, kept, entered, config, axis_name)
    take_turns = {'alternate': _alternate, 'simultaneous': _simultaneous}[config.artifacts.updates]
    new, first, second, decay = take_turns(play, whole)
    new = new.replace(
        step=state.step + 1,
        batch_stats={config.artifacts.generator: second.batch_stats, 'discriminator': first.batch_stats},
        ema=optim.moving_average(state.ema, new.params, config.optim.ema_decay, state.step),
        history=history.remember(state.history, entered, second.fake, mask, axis_name=axis_name),
    )
    values = total({**first.values, **second.values}, axis_name)
    values = {name: x.value() if isinstance(x, game.Ratio) else x for name, x in values.items()}
    return new, {**values, **decay}


def _alternate(play, batch):
    """The generator plays against the just-updated discriminator, on the same fakes.

    Returns (state, the discriminator's turn, the generator's, {name: scalar} of their updates).
    """
    parts = play.config.accumulate
    made = play.examples(batch) if parts == 1 else None  # those of several parts are made again, not kept

    def ask(part):
        turn, _ = play.discriminator_turn(part, made or play.examples(part))
        return turn

    first = accumulated(ask, parts, batch)
    new, values = _descend(play, play.state, {'discriminator': first})

    def answer(part):
        examples = made or play.examples(part)
        judged = play.judge(new.params['discriminator'], examples.real, examples.fake, part.keys.generator_dropout)
        return play.generator_turn(part, examples, judged)

    second = accumulated(answer, parts, batch)
    new, more = _descend(play, new, {play.config.artifacts.generator: second})
    return new, first, second, {**values, **more}


def _simultaneous(play, batch):
    """Both learn from one pass of the discriminator, but for a history: the generator is judged by its own fakes.

    Returns what `_alternate` does.
    """

    def both(part):
        examples = play.examples(part)
        turn, judged = play.discriminator_turn(part, examples)
        if play.state.history is not None:
            now = play.state.params['discriminator']
            judged = play.judge(now, examples.real, examples.fake, part.keys.generator_dropout)
        return turn, play.generator_turn(part, examples, judged)

    first, second = accumulated(both, play.config.accumulate, batch)
    new, values = _descend(play, play.state, {'discriminator': first, play.config.artifacts.generator: second})
    return new, first, second, values


def _descend(play, state, turns):
    """Returns (state, {name: scalar}) after an update of each network by what it has learned, {network: its turn}."""
    gradients = {network: total(turn.gradient, play.axis_name) for network, turn in turns.items()}
    l2 = play.config.optim.l2
    state, decays, norms = optim.descend(state, gradients, _optimiser(play.config), l2=l2)
    sides = {network: 'discriminator' if network == 'discriminator' else 'generator' for network in turns}
    return state, {
        **{f'loss/{sides[network]}_l2': decay for network, decay in decays.items()},
        **{f'grad_norm/{network}': norm for network, norm in norms.items()},
    }
