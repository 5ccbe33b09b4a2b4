"""Stage 2: damage and repair create artifacts, and a discriminator learns features by spotting them.

Encoder and decoder are frozen, both weights and batch-norm statistics. Only the repair network of the generator is
trained. Each step updates the repair network and the discriminator once.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from artifacts_jax.data import augment
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices, accumulate, mean, total
from artifacts_jax.models import architecture, layers
from artifacts_jax.pretraining import autoencoder, game, held_out, history, optim
from artifacts_jax.training import keys, measure
from artifacts_jax.training.state import State, select

NAME = 'artifacts'
SPLITS = ('train', 'probe_train', 'test')  # splits of the data that this stage needs
SUPPORTS_REPLAY = True  # --replay can repeat a step with a NaN loss
BASE = autoencoder  # the stage whose variables this one freezes
PROGRESS_METRICS = held_out.PROGRESS_METRICS
make_evaluator, make_plotter = held_out.make_evaluator, held_out.make_plotter
select_discriminator = game.select_discriminator


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch size is not divisible by the number of devices (probe batches: of processes)."""
    devices.check_batch('batch_size', config.batch_size, config.accumulate)
    processes.check_batch('probe.batch_size', config.probe.batch_size)


def sample_batch(config: ConfigDict) -> dict:
    """Returns a batch of random images on the host, for the benchmark."""
    return measure.make_noise_batch(config)


def get_steps_and_batch_size(config: ConfigDict) -> tuple[int, int]:
    """Returns (steps, images in a global batch) of this stage."""
    return config.artifacts.steps, config.batch_size


def _make_optimiser(config):
    stage = config.artifacts
    return optim.adam(optim.schedule(stage.learning_rate, stage.steps, config), config)


def init_state(key: Key[Array, ''], base: dict | None, *, config: ConfigDict) -> State:
    """Returns the state at step 0.

    Args:
      key: PRNG key of the initial weights of repair network (or GAN) and discriminator.
      base: the trained autoencoder's variables, which are frozen here; with None the state has no autoencoder, and is
        only useful for its initial weights.
      config: the run's configuration.
    """
    generator_key, discriminator_key = jax.random.split(key)
    network, generator, size = config.artifacts.generator, architecture.make_generator(config), config.model.image_size
    mask = jnp.ones((1, *architecture.mask_grid(config), 1))
    phi = jnp.zeros((*mask.shape[:3], config.model.encoder_widths[-1]))
    if network == 'gan':
        generator_variables = generator.init(generator_key, phi, method='decode_noise')
    else:
        generator_variables = generator.init(generator_key, phi, mask, method='corrupt')
    discriminator = architecture.make_discriminator(config)
    discriminator_variables = discriminator.init(discriminator_key, jnp.zeros((1, size, size, 3)))
    variables = {
        kind: {
            **(base or {kind: {}})[kind],
            network: generator_variables[kind].get(network, {}),
            'discriminator': discriminator_variables[kind],
        }
        for kind in discriminator_variables
    }
    return create_state(variables, config=config)


def create_state(variables: dict, *, config: ConfigDict) -> State:
    """Returns the state at step 0 with existing variables, for example those from tf1.convert.

    Args:
      variables: {'params': {network: tree}, 'batch_stats': {network: tree}} of 'encoder' and 'decoder', which are
        frozen, and of 'repair' (or 'gan') and 'discriminator', which are trained.
      config: the run's configuration.
    """
    trained = (config.artifacts.generator, 'discriminator')
    state = State.create(
        select(variables, trained),
        {(name,): _make_optimiser(config) for name in trained},
        ema=config.optim.ema_decay > 0,
        frozen=select(variables, autoencoder.NETWORKS),
    )
    return state.replace(history=history.create(config))


def train_step(
    state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
) -> tuple[State, dict]:
    """One adversarial training step (game.py): one update of the discriminator and one of the generator.

    The inputs are augmented images and random masks. The discriminator always gets [real; fake] as one batch, whose
    statistics normalise conv5 and fc1 (as in the 2018 code). Its running averages are updated only by the forward pass
    of its own update. With `accumulate`, [real; fake] is a microbatch, and the running averages are updated by the mean
    over the microbatches.

    Args:
      state: with the networks 'discriminator' and 'repair' (or 'gan'), and the frozen 'encoder' and 'decoder'.
      batch: 'image' uint8 [B, H, W, 3] and 'index' int32 [B], this device's slice of the global batch.
      key: the stage's key.
      config: the run's configuration.
      axis_name: the devices' axis under pmap.

    Returns:
      (state, {name: scalar}).
    """
    example_keys = game.ExampleKeys(*keys.example_keys(key, state.step, batch['index'], len(game.ExampleKeys._fields)))
    images = augment.training_view(config, example_keys.augment, batch['image'])
    mask = layers.spatial_mask(example_keys.mask, architecture.mask_grid(config), config.artifacts.drop_rate)
    inputs = game.Batch(images, mask, example_keys, jnp.asarray(batch['index']))
    kept_fraction = total(mean(mask, axis_name), axis_name)
    num_added = state.step * (total(len(images), axis_name) // 2)
    current_game = game.Game(state, kept_fraction, num_added, config, axis_name)
    update = {'alternate': _update_alternately, 'simultaneous': _update_simultaneously}[config.artifacts.updates]
    new, discriminator, generator, update_metrics = update(current_game, inputs)
    new = new.replace(
        step=state.step + 1,
        batch_stats={config.artifacts.generator: generator.batch_stats, 'discriminator': discriminator.batch_stats},
        ema=optim.moving_average(state.ema, new.params, config.optim.ema_decay, state.step),
        history=history.add(state.history, num_added, generator.fake, mask, axis_name=axis_name),
    )
    metrics = total({**discriminator.metrics, **generator.metrics}, axis_name)
    metrics = {name: x.compute() if isinstance(x, game.Ratio) else x for name, x in metrics.items()}
    return new, {**metrics, **update_metrics}


def _update_alternately(current_game, batch):
    """Updates the discriminator, then the generator against the updated discriminator, on the same fakes.

    Returns:
      (state, the discriminator's NetworkGradients, the generator's NetworkGradients, {name: scalar} of both updates).
    """
    config = current_game.config
    # The examples of several microbatches are computed twice, because keeping all of them would take too much memory.
    shared_examples = current_game.make_examples(batch) if config.accumulate == 1 else None

    def discriminator_gradients(microbatch):
        examples = shared_examples or current_game.make_examples(microbatch)
        return current_game.compute_discriminator_gradients(microbatch, examples)[0]

    discriminator = accumulate(discriminator_gradients, config.accumulate, batch)
    new, metrics = _apply_gradients(current_game, current_game.state, {'discriminator': discriminator})

    def generator_gradients(microbatch):
        examples = shared_examples or current_game.make_examples(microbatch)
        params, dropout_keys = new.params['discriminator'], microbatch.keys.generator_update_dropout
        forward = current_game.run_discriminator(params, examples.real, examples.fake, dropout_keys)
        return current_game.compute_generator_gradients(microbatch, examples, forward)

    generator = accumulate(generator_gradients, config.accumulate, batch)
    new, generator_metrics = _apply_gradients(current_game, new, {config.artifacts.generator: generator})
    return new, discriminator, generator, {**metrics, **generator_metrics}


def _update_simultaneously(current_game, batch):
    """Updates both networks from one forward pass of the discriminator; returns the same as `_update_alternately`.

    With a history buffer, the generator needs a second pass: the discriminator's batch contains earlier fakes, which
    have no gradient with respect to the generator.
    """
    config, state = current_game.config, current_game.state

    def gradients(microbatch):
        examples = current_game.make_examples(microbatch)
        discriminator, forward = current_game.compute_discriminator_gradients(microbatch, examples)
        if state.history is not None:
            params, dropout_keys = state.params['discriminator'], microbatch.keys.generator_update_dropout
            forward = current_game.run_discriminator(params, examples.real, examples.fake, dropout_keys)
        return discriminator, current_game.compute_generator_gradients(microbatch, examples, forward)

    discriminator, generator = accumulate(gradients, config.accumulate, batch)
    both = {'discriminator': discriminator, config.artifacts.generator: generator}
    new, metrics = _apply_gradients(current_game, state, both)
    return new, discriminator, generator, metrics


def _apply_gradients(current_game, state, results):
    """Returns (state, {name: scalar}) after one update of each network in results, {network: NetworkGradients}."""
    gradients = {network: total(result.gradients, current_game.axis_name) for network, result in results.items()}
    config = current_game.config
    state, l2_terms, norms = optim.apply_gradients(state, gradients, _make_optimiser(config), l2=config.optim.l2)
    names = {network: 'discriminator' if network == 'discriminator' else 'generator' for network in results}
    return state, {
        **{f'loss/{names[network]}_l2': term for network, term in l2_terms.items()},
        **{f'grad_norm/{network}': norm for network, norm in norms.items()},
    }
