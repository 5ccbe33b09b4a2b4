"""The game on held-out images: how both sides do, how good the features look, and the figures that show it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import augment
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.drawing import grids
from artifacts_jax.features import extraction
from artifacts_jax.models import architecture, layers
from artifacts_jax.models.discriminator import REAL
from artifacts_jax.pretraining import game
from artifacts_jax.training import keys, metrics

PROGRESS_METRICS = {  # to a person, of what the evaluation returns
    'real': 'accuracy/real',
    'fake': 'accuracy/fake',
    'mask AUC': 'mask_auc',
    **{f'{"kNN " * (n == 1)}conv{n}': f'knn/conv{n}' for n in range(1, 6)},
}
COLUMNS = (  # of the figure of artifacts, as in the paper
    'original',
    'mask,\norange: dropped',
    'mask over\nthe original',
    'decoded',
    'damaged,\nno repair',
    'damaged,\nrepaired',
    'repair\nnot masked',
    'damaged and\nrepaired twice',
)
GAN_COLUMNS = ('original', 'decoded', 'generated\nfrom noise')
POOL = 8  # images that each one shown is chosen from


def _views(config, batch, key):
    """Returns (test views of the images, masks that depend on the key and each example's index alone)."""
    (mask_keys,) = keys.example_keys(key, 0, batch['index'], 1)
    mask = layers.spatial_mask(mask_keys, architecture.mask_grid(config), config.artifacts.drop_rate)
    return augment.test_view(config, batch['image']), mask


def _play(config, variables, batch, key):
    """Returns (images, masks, the game on them)."""
    images, mask = _views(config, batch, key)
    (noise_keys,) = keys.example_keys(key, 1, batch['index'], 1)
    return images, mask, game.play(variables, images, mask, noise_keys, config)


def _player(config, devices, datasets):
    """Returns play(state, key) -> {name: array, one entry for each held-out image}: what the discriminator finds."""

    def play(inputs, batch):
        variables, key = inputs
        _, mask, played = _play(config, variables, batch, key)
        (real_logits, _), (fake_logits, mask_logits) = played.of_real, played.of_fake
        right = game.rightly_told(real_logits, fake_logits, mask_logits, mask)
        share = right['accuracy/mask'].mean(axis=(1, 2, 3))
        return {**right, 'accuracy/mask': share, 'mask_logits': mask_logits, 'kept': mask > 0}

    mapped = devices.per_example(play)

    def play_all(state, key):
        batches = datasets['test'].eval_batches(config.batch_size, limit=config.eval_examples)
        results = [mapped((state.variables, key), batch) for batch in batches]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *results)

    return play_all


def _mask_auc(results):
    return metrics.auc(results['mask_logits'].ravel(), results['kept'].ravel())


def make_evaluator(config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
    """Returns evaluate(state, key) -> {name: value}: the game on held-out images, and how good the features are."""
    play, monitor = _player(config, devices, datasets), extraction.make_monitor(config, devices, datasets)

    def evaluate(state, key):
        results = play(state, key)
        values = {name: float(x.mean()) for name, x in results.items() if name.startswith('accuracy')}
        return {**values, 'mask_auc': _mask_auc(results), **monitor(game.discriminator(state.variables))}

    return evaluate


def shown(dataset: Any, examples: int, first_batch: int = 0) -> dict[str, np.ndarray]:
    """Returns a batch of images to draw, of as many classes as can be: one of each, then a second of each.

    They are chosen from POOL times as many, those of most contrast first: damage to a flat image cannot be seen. What
    the networks make of them plays no part.

    Args:
      dataset: a split, in memory or streamed.
      examples: how many, over all hosts, which their number divides.
      first_batch: which of the split's training batches of POOL times as many they are from.
    """
    batch = next(dataset.train_batches(POOL * examples, start_step=first_batch))
    order = np.argsort(-batch['image'].std(axis=(1, 2)).mean(axis=-1), kind='stable')
    labels, pictures = batch['label'][order], [image.tobytes() for image in batch['image'][order]]
    rounds = [np.count_nonzero(labels[:n] == label) for n, label in enumerate(labels)]
    copies = [pictures.index(picture) < n for n, picture in enumerate(pictures)]  # of a split smaller than the pool
    chosen = order[np.lexsort((rounds, copies))[: len(order) // POOL]]
    return {name: x[chosen] for name, x in batch.items()}


def make_plotter(
    config: ConfigDict, devices: Devices, datasets: dict, *, examples: int = 8, first_batch: int = 0
) -> Callable:
    """Returns draw(state, key, folder), which writes artifacts.png, mask_prediction.png and conv1.png (None: nothing).

    The first two show the game on held-out images, the paper's figure and what the discriminator makes of it, with how
    well it finds the damage of all held-out images; a GAN damages nothing, so it has no mask to predict.

    Args:
      config: the run's configuration.
      devices: the mapping over devices.
      datasets: {'test': data set}.
      examples: how many images are shown, at least; as many on each host.
      first_batch: which of the test split's batches they are from, as of `shown`.
    """
    generator, gan = architecture.make_generator(config), config.artifacts.generator == 'gan'

    def show(inputs, batch):
        variables, key = inputs
        images, mask, played = _play(config, variables, batch, key)

        def apply(method, *args, **options):
            return generator.apply(variables, *args, method=method, **options)

        def verdict(examples, outputs):
            logits, mask_logits = outputs
            return {'image': examples, 'real': jax.nn.softmax(logits)[:, REAL], 'kept': jax.nn.sigmoid(mask_logits)}

        judged = verdict(played.fake, played.of_fake), verdict(played.real, played.of_real), mask
        phi, decoded = played.phi, apply('decode', played.phi)
        if gan:
            return (images, decoded, played.fake), judged
        repaired = apply('corrupt', phi, mask)
        columns = (
            images,
            mask,
            (images, mask),
            decoded,
            apply('damaged', phi, mask),
            repaired,
            apply('corrupt', phi, mask, gated=False),
            apply('corrupt', apply('encode', repaired), mask),
        )
        return columns, judged

    mapped, play = devices.per_example(show), _player(config, devices, datasets)

    def draw(state, key, folder):
        batch = shown(datasets['test'], processes.round_up(examples), first_batch)
        columns, judged = mapped((state.variables, key), batch)
        results = {} if gan else play(state, key)
        if folder is None:
            return
        step = f'{int(state.step):,}'
        about = f'held-out images of {Path(config.data.name).name}, after {step} steps'
        named = dict(zip(GAN_COLUMNS if gan else COLUMNS, columns))
        grids.image_grid(folder / 'artifacts.png', named, title=f'Damage and repair: {about}')
        if not gan:
            found = f'the area under the curve is {_mask_auc(results):.2f} over {len(results["kept"]):,} images'
            title = f'What the discriminator predicts: {about}. Of the mask, {found} (0.5: chance, 1: all found)'
            real = {'input': 'original'}.get(config.artifacts.real, 'decoded')
            grids.mask_prediction(folder / 'mask_prediction.png', *judged, title=title, real_name=real)
        kernel = np.asarray(state.params['discriminator']['trunk']['conv1']['group0']['kernel'])
        title = (
            f"conv1's {kernel.shape[-1]} filters after {step} steps, in the network's order, each scaled to its range"
        )
        grids.filters(folder / 'conv1.png', kernel, title=title)

    return draw
