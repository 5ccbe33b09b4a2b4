"""Evaluation of the `artifacts` stage on held-out images: accuracies, mask AUC, quality of features, and figures."""

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

PROGRESS_METRICS = {  # {heading in the log: metric of the evaluation}
    'real': 'accuracy/real',
    'fake': 'accuracy/fake',
    'mask AUC': 'mask_auc',
    **{f'{"kNN " * (n == 1)}conv{n}': f'knn/conv{n}' for n in range(1, 6)},
}
COLUMNS = (  # of artifacts.png, as in the paper's figure
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
CANDIDATES = 8  # each plotted image is chosen from this many images


def _preprocess(config, batch, key):
    """Returns (test views of the images, masks); a mask depends only on the key and the example's index."""
    (mask_keys,) = keys.example_keys(key, 0, batch['index'], 1)
    mask = layers.spatial_mask(mask_keys, architecture.mask_grid(config), config.artifacts.drop_rate)
    return augment.test_view(config, batch['image']), mask


def _compute_outputs(config, variables, batch, key):
    """Returns (images, masks, EvalOutputs of all networks)."""
    images, mask = _preprocess(config, batch, key)
    (noise_keys,) = keys.example_keys(key, 1, batch['index'], 1)
    return images, mask, game.compute_eval_outputs(variables, images, mask, noise_keys, config)


def _make_predictor(config, devices, datasets):
    """Returns predict(state, key) -> {name: array with one entry per held-out image} of the discriminator."""

    def predict_batch(inputs, batch):
        variables, key = inputs
        _, mask, outputs = _compute_outputs(config, variables, batch, key)
        (real_logits, _), (fake_logits, mask_logits) = outputs.real_outputs, outputs.fake_outputs
        correct = game.compare_predictions(real_logits, fake_logits, mask_logits, mask)
        mask_accuracy = correct['accuracy/mask'].mean(axis=(1, 2, 3))
        return {**correct, 'accuracy/mask': mask_accuracy, 'mask_logits': mask_logits, 'kept': mask > 0}

    mapped = devices.per_example(predict_batch)

    def predict(state, key):
        batches = datasets['test'].eval_batches(config.batch_size, limit=config.eval_examples)
        results = [mapped((state.variables, key), batch) for batch in batches]
        return jax.tree.map(lambda *arrays: np.concatenate(arrays), *results)

    return predict


def _mask_auc(results):
    return metrics.auc(results['mask_logits'].ravel(), results['kept'].ravel())


def make_evaluator(config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
    """Returns evaluate(state, key) -> {name: value} on held-out images: accuracies, mask AUC, kNN; all in [0, 1]."""
    predict, monitor = _make_predictor(config, devices, datasets), extraction.make_monitor(config, devices, datasets)

    def evaluate(state, key):
        results = predict(state, key)
        values = {name: float(x.mean()) for name, x in results.items() if name.startswith('accuracy')}
        return {**values, 'mask_auc': _mask_auc(results), **monitor(game.select_discriminator(state.variables))}

    return evaluate


def choose_images(dataset: Any, examples: int, first_batch: int = 0) -> dict[str, np.ndarray]:
    """Returns a batch of images to plot: first one image of each class, then a second one of each, and so on.

    They are chosen from CANDIDATES times as many images. Within a class, images with more contrast come first, because
    damage to a flat image is invisible. The choice does not depend on the outputs of the networks.

    Args:
      dataset: a split, in memory or streamed.
      examples: the number of images over all hosts; must be divisible by the number of hosts.
      first_batch: index of the training batch of the split (of CANDIDATES * examples images) to choose from.
    """
    batch = next(dataset.train_batches(CANDIDATES * examples, start_step=first_batch))
    order = np.argsort(-batch['image'].std(axis=(1, 2)).mean(axis=-1), kind='stable')
    labels, contents = batch['label'][order], [image.tobytes() for image in batch['image'][order]]
    ranks_in_class = [np.count_nonzero(labels[:n] == label) for n, label in enumerate(labels)]
    is_copy = [contents.index(content) < n for n, content in enumerate(contents)]  # if the split has few images
    chosen = order[np.lexsort((np.array(ranks_in_class), np.array(is_copy)))[: len(order) // CANDIDATES]]
    return {name: x[chosen] for name, x in batch.items()}


def make_plotter(
    config: ConfigDict, devices: Devices, datasets: dict, *, examples: int = 8, first_batch: int = 0
) -> Callable:
    """Returns plot(state, key, folder), which saves artifacts.png, mask_prediction.png and conv1.png into the folder.

    artifacts.png shows damage and repair of held-out images, as the paper's figure. mask_prediction.png shows the
    discriminator's predictions for them; its title gives the mask AUC over all held-out images. A GAN generator has no
    mask, and thus no mask_prediction.png. With folder=None (all hosts but the first), nothing is saved.

    Args:
      config: the run's configuration.
      devices: the mapping over devices.
      datasets: {'test': data set}.
      examples: the minimum number of plotted images; it is rounded up to a multiple of the number of hosts.
      first_batch: index of the batch of the test split that the images are chosen from, as in `choose_images`.
    """
    generator, is_gan = architecture.make_generator(config), config.artifacts.generator == 'gan'

    def compute_columns(inputs, batch):
        variables, key = inputs
        images, mask, outputs = _compute_outputs(config, variables, batch, key)

        def apply(method, *args, **options):
            return generator.apply(variables, *args, method=method, **options)

        def predictions(examples, discriminator_outputs):
            logits, mask_logits = discriminator_outputs
            return {'image': examples, 'real': jax.nn.softmax(logits)[:, REAL], 'kept': jax.nn.sigmoid(mask_logits)}

        fake_predictions = predictions(outputs.fake, outputs.fake_outputs)
        real_predictions = predictions(outputs.real, outputs.real_outputs)
        phi, decoded = outputs.phi, apply('decode', outputs.phi)
        if is_gan:
            return (images, decoded, outputs.fake), (fake_predictions, real_predictions, mask)
        repaired = apply('corrupt', phi, mask)
        columns = (
            images,
            mask,
            (images, mask),
            decoded,
            apply('decode_damaged', phi, mask),
            repaired,
            apply('corrupt', phi, mask, gated=False),
            apply('corrupt', apply('encode', repaired), mask),
        )
        return columns, (fake_predictions, real_predictions, mask)

    mapped, predict = devices.per_example(compute_columns), _make_predictor(config, devices, datasets)

    def plot(state, key, folder):
        batch = choose_images(datasets['test'], processes.round_up(examples), first_batch)
        columns, predictions = mapped((state.variables, key), batch)
        results = {} if is_gan else predict(state, key)
        if folder is None:
            return
        step = f'{int(state.step):,}'
        source = f'held-out images of {Path(config.data.name).name}, after {step} steps'
        named = dict(zip(GAN_COLUMNS if is_gan else COLUMNS, columns))
        grids.plot_image_grid(folder / 'artifacts.png', named, title=f'Damage and repair: {source}')
        if not is_gan:
            auc = f'mask AUC {_mask_auc(results):.2f} over {len(results["kept"]):,} images (0.5: chance, 1: perfect)'
            title = f"The discriminator's predictions: {source}; {auc}"
            real = {'input': 'original'}.get(config.artifacts.real, 'decoded')
            grids.plot_mask_prediction(folder / 'mask_prediction.png', *predictions, title=title, real_name=real)
        kernel = np.asarray(state.params['discriminator']['trunk']['conv1']['group0']['kernel'])
        title = (
            f'The {kernel.shape[-1]} conv1 filters in network order after {step} steps, each scaled to its own range'
        )
        grids.plot_filters(folder / 'conv1.png', kernel, title=title)

    return plot
