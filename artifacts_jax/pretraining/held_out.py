"""The game on held-out images: how both sides do, how good the features look, and the figures that show it."""

import collections
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import augment
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.drawing import grids
from artifacts_jax.features import extraction
from artifacts_jax.models import architecture, layers
from artifacts_jax.models.discriminator import FAKE, REAL
from artifacts_jax.pretraining.game import fake_examples, real_examples
from artifacts_jax.training import keys, metrics

SHOWN = {  # to a person, of what the evaluator finds
    'real': 'accuracy/real',
    'fake': 'accuracy/fake',
    'mask AUC': 'mask_auc',
    **{f'{"kNN " * (n == 1)}conv{n}': f'knn/conv{n}' for n in range(1, 6)},
}
POOL = 32  # images that those of a figure are picked from
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


def discriminator(variables: dict) -> dict:
    """Returns the discriminator's part of a stage's variables, {'params': ..., 'batch_stats': ...}."""
    return {kind: tree['discriminator'] for kind, tree in variables.items()}


def _views(config, batch, key):
    """Returns (test views of the images, masks that depend on the key and each example's index alone)."""
    (mask_keys,) = keys.example_keys(key, 0, batch['index'], 1)
    mask = layers.spatial_mask(mask_keys, architecture.mask_grid(config), config.artifacts.drop_rate)
    return augment.test_view(config, batch['image']), mask


def evaluator(config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
    """Returns evaluate(state, key) -> {name: value}: the game on held-out images, and how good the features are."""
    generator, judge = architecture.make_generator(config), architecture.make_discriminator(config)
    monitor = extraction.monitor(config, devices, datasets)

    def play(inputs, batch):
        variables, key = inputs
        images, mask = _views(config, batch, key)
        (noise_keys,) = keys.example_keys(key, 1, batch['index'], 1)
        phi = generator.apply(variables, images, method='encode')
        real = real_examples(generator, variables, images, phi, config)
        fake = fake_examples(generator, variables, phi, mask, noise_keys, config)
        (real_logits, _), _ = judge.apply(discriminator(variables), real)
        (fake_logits, mask_logits), _ = judge.apply(discriminator(variables), fake)
        return {
            'accuracy/real': real_logits.argmax(-1) == REAL,
            'accuracy/fake': fake_logits.argmax(-1) == FAKE,
            'accuracy/mask': ((mask_logits > 0) == (mask > 0)).mean(axis=(1, 2, 3)),
            'mask_logits': mask_logits,
            'kept': mask > 0,
        }

    mapped = devices.per_example(play)

    def evaluate(state, key):
        batches = datasets['test'].eval_batches(config.batch_size, limit=config.eval_examples)
        results = [mapped((state.variables, key), batch) for batch in batches]
        results = jax.tree.map(lambda *parts: np.concatenate(parts), *results)
        values = {name: float(x.mean()) for name, x in results.items() if name.startswith('accuracy')}
        values['mask_auc'] = metrics.auc(results['mask_logits'].ravel(), results['kept'].ravel())
        return {**values, **monitor(discriminator(state.variables))}

    return evaluate


def illustrator(
    config: ConfigDict, devices: Devices, datasets: dict, *, examples: int = 8, first_batch: int = 0
) -> Callable:
    """Returns draw(state, key, folder), which writes artifacts.png, mask_prediction.png and conv1.png (None: nothing).

    The first two show the game on held-out images, the paper's figure and what the discriminator makes of it; a GAN
    damages nothing, so it has no mask to predict. Of POOL images those are shown that have the most different labels.

    Args:
      config: the run's configuration.
      devices: the mapping over devices.
      datasets: {'test': data set}.
      examples: how many images are shown.
      first_batch: which of the test split's batches of POOL images (or of so many, if that is more) they are from.
    """
    generator, judge = architecture.make_generator(config), architecture.make_discriminator(config)
    gan = config.artifacts.generator == 'gan'

    def show(inputs, batch):
        variables, key = inputs
        images, mask = _views(config, batch, key)
        (noise_keys,) = keys.example_keys(key, 1, batch['index'], 1)

        def apply(method, *args, **options):
            return generator.apply(variables, *args, method=method, **options)

        def verdict(images):
            (logits, mask_logits), _ = judge.apply(discriminator(variables), images)
            return {'image': images, 'real': jax.nn.softmax(logits)[:, REAL], 'kept': jax.nn.sigmoid(mask_logits)}

        phi = apply('encode', images)
        decoded, fake = apply('decode', phi), fake_examples(generator, variables, phi, mask, noise_keys, config)
        judged = verdict(fake), verdict(real_examples(generator, variables, images, phi, config)), mask
        if gan:
            return (images, decoded, fake), judged, batch['label']
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
        return columns, judged, batch['label']

    mapped = devices.per_example(show)

    def draw(state, key, folder):
        size = processes.divisible(max(examples, POOL))
        batch = next(datasets['test'].train_batches(size, start_step=first_batch))
        columns, judged, labels = mapped((state.variables, key), batch)
        if folder is None:
            return
        found = metrics.auc(judged[0]['kept'].ravel(), judged[2].ravel() > 0)
        columns, judged = jax.tree.map(lambda x: x[_varied(labels, examples)], (columns, judged))
        step = f'{int(state.step):,}'
        about = f'held-out images of {Path(config.data.name).name}, after {step} steps'
        named = dict(zip(GAN_COLUMNS if gan else COLUMNS, columns))
        grids.image_grid(folder / 'artifacts.png', named, title=f'Damage and repair: {about}')
        if not gan:
            title = (
                f'What the discriminator predicts: {about}; it tells kept from dropped, of {size} images, with an area'
                f' under the curve of {found:.2f}: 0.5 is chance, 1 without error'
            )
            real = {'input': 'original'}.get(config.artifacts.real, 'decoded')
            grids.mask_prediction(folder / 'mask_prediction.png', *judged, title=title, real_name=real)
        kernel = np.asarray(state.params['discriminator']['trunk']['conv1']['group0']['kernel'])
        title = (
            f"conv1's {kernel.shape[-1]} filters after {step} steps, in the network's order, each scaled to its range"
        )
        grids.filters(folder / 'conv1.png', kernel, title=title)

    return draw


def _varied(labels, count):
    """Returns the positions of so many examples: the first of each label, then the second of each, ..."""
    turns, seen = [], collections.Counter()
    for label in labels.tolist():
        turns.append(seen[label] if label >= 0 else 0)
        seen[label] += 1
    return np.argsort(turns, kind='stable')[:count]
