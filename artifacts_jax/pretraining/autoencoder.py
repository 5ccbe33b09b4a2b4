"""Stage 1: an autoencoder is trained to reconstruct images."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from artifacts_jax.data import augment
from artifacts_jax.devices import parallel, processes
from artifacts_jax.drawing import grids
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import losses, optim
from artifacts_jax.training import keys, measure, metrics
from artifacts_jax.training.state import State, select

NAME = 'autoencoder'
SUPPORTS_REPLAY = True  # --replay can repeat a step with a NaN loss
BASE = None  # the stage whose variables this one builds on
NETWORKS = ('encoder', 'decoder')
SPLITS = ('train', 'test')  # splits of the data that this stage needs
PROGRESS_METRICS = {'PSNR (dB)': 'psnr', 'mean squared error': 'mse'}  # {heading in the log: metric of the evaluation}


def check(config: ConfigDict, devices: parallel.Devices) -> None:
    """Raises ConfigError if the batch size is not divisible by the number of devices."""
    devices.check_batch('batch_size', config.batch_size, config.accumulate)


def sample_batch(config: ConfigDict) -> dict:
    """Returns a batch of random images on the host, for the benchmark."""
    return measure.make_noise_batch(config)


def get_steps_and_batch_size(config: ConfigDict) -> tuple[int, int]:
    """Returns (steps, images in a global batch) of this stage."""
    return config.autoencoder.steps, config.batch_size


def _make_optimiser(config):
    stage = config.autoencoder
    return optim.adam(optim.schedule(stage.learning_rate, stage.steps, config), config)


def init_state(key: Key[Array, ''], base: None, *, config: ConfigDict) -> State:
    """Returns the state at step 0 with random weights from `key`; `base` is None, because this is the first stage."""
    del base
    generator = architecture.make_generator(config)
    images = jnp.zeros((1, config.model.image_size, config.model.image_size, 3))
    return create_state(generator.init(key, images, method='reconstruct'), config=config)


def create_state(variables: dict, *, config: ConfigDict) -> State:
    """Returns the state at step 0 with the encoder and decoder of `variables`, for example those from tf1.convert."""
    return State.create(
        select(variables, NETWORKS), {NETWORKS: _make_optimiser(config)}, ema=config.optim.ema_decay > 0
    )


def train_step(
    state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
) -> tuple[State, dict]:
    """Updates encoder and decoder once, on augmented images.

    Args:
      state: with the networks 'encoder' and 'decoder'.
      batch: 'image' uint8 [B, H, W, 3] and 'index' int32 [B], this device's slice of the global batch.
      key: the stage's key.
      config: the run's configuration.
      axis_name: the devices' axis under pmap.

    Returns:
      (state, {name: scalar}).
    """
    (augment_keys,) = keys.example_keys(key, state.step, batch['index'], 1)
    images = augment.training_view(config, augment_keys, batch['image'])
    return update(state, images, config=config, axis_name=axis_name)


def update(
    state: State, images: Float[Array | np.ndarray, 'B H W 3'], *, config: ConfigDict, axis_name: str | None = None
) -> tuple[State, dict]:
    """Updates encoder and decoder once, on images in [-1, 1]; returns (state, {name: scalar}).

    The loss is pixel_weight * mean |x - D(E(x))|^2 + L2.
    """
    generator = architecture.make_generator(config, axis_name)

    def loss(params, images):
        decoded, updates = generator.apply(
            {'params': params, 'batch_stats': state.batch_stats},
            images,
            train=True,
            method='reconstruct',
            mutable=['batch_stats'],
        )
        terms = {
            'loss/pixel': config.autoencoder.pixel_weight * parallel.mean(jnp.square(decoded - images), axis_name),
            # As in the 2018 code, weight decay applies to the autoencoder's biases too.
            'loss/l2': parallel.share(config.optim.l2 * losses.l2(params, biases=True), axis_name),
        }
        return sum(terms.values()), (terms, updates['batch_stats'])

    compute_gradients = partial(jax.grad(loss, has_aux=True), state.params)
    grads, (terms, batch_stats) = parallel.accumulate(compute_gradients, config.accumulate, images)
    grads, terms = parallel.total((grads, terms), axis_name)
    new = state.apply_gradients(_make_optimiser(config), grads)
    new = new.replace(
        step=state.step + 1,
        batch_stats=batch_stats,
        ema=optim.moving_average(state.ema, new.params, config.optim.ema_decay, state.step),
    )
    return new, {**terms, **{f'grad_norm/{name}': optim.global_norm(grads[name]) for name in NETWORKS}}


def make_evaluator(config: ConfigDict, devices: parallel.Devices, datasets: dict) -> Callable:
    """Returns evaluate(state, key) -> {'psnr': dB, 'mse': value}, the mean reconstruction error of held-out images."""
    generator = architecture.make_generator(config)

    def reconstruct(variables, batch):
        images = augment.test_view(config, batch['image'])
        decoded = generator.apply(variables, images, method='reconstruct')
        return {'psnr': metrics.psnr(images, decoded), 'mse': jnp.square(images - decoded).mean(axis=(1, 2, 3))}

    mapped = devices.per_example(reconstruct)

    def evaluate(state, key):
        del key
        batches = datasets['test'].eval_batches(config.batch_size, limit=config.eval_examples)
        results = [mapped(state.variables, batch) for batch in batches]
        return {name: float(np.concatenate([r[name] for r in results]).mean()) for name in ('psnr', 'mse')}

    return evaluate


def make_plotter(config: ConfigDict, devices: parallel.Devices, datasets: dict) -> Callable:
    """Returns plot(state, key, folder), which saves autoencoder.png: held-out images and their reconstructions.

    With folder=None, nothing is saved (on all hosts but the first).
    """
    generator = architecture.make_generator(config)

    def reconstruct(variables, batch):
        images = augment.test_view(config, batch['image'])
        return images, generator.apply(variables, images, method='reconstruct')

    mapped = devices.per_example(reconstruct)

    def plot(state, key, folder):
        del key
        batch = next(datasets['test'].train_batches(processes.round_up(8)))
        columns = zip(('original', 'decoded'), mapped(state.variables, batch))
        if folder:
            grids.plot_image_grid(folder / 'autoencoder.png', dict(columns))

    return plot
