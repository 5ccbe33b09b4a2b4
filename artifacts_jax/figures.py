"""Plots the figures of the paper from the newest checkpoint of the `artifacts` stage; the run may be incomplete.

python -m artifacts_jax.figures --workdir=runs/demo
python -m artifacts_jax.figures --workdir=runs/demo --out=talk --examples=4 --seed=1 --layer=conv3

The PNG files in WORKDIR/figures, or in the folder --out: artifacts.png (held-out images, damaged and repaired),
mask_prediction.png (the discriminator's predictions for them), conv1.png (the discriminator's first filters) and
neighbours.png (nearest neighbours with its features, and with those of a random network).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.devices import host

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')  # as in extraction.py, whose import takes seconds
NEIGHBOURS = 6


def write(
    workdir: Path,
    out: Path,
    *,
    examples: int = 8,
    seed: int = 0,
    layer: str = 'conv5',
    bank: int = 5000,
    data_dir: str | None = None,
) -> None:
    """Saves the figures of a run as PNG files.

    Args:
      workdir: the run's work directory.
      out: the folder of the PNG files.
      examples: number of held-out images in the figures.
      seed: selects images and masks; 0 selects those of the figures during training.
      layer: the layer whose features define the nearest neighbours.
      bank: number of training images to search for neighbours; 0 searches all.
      data_dir: the new path of the data, if the data has moved: the tfds folder, or the folder of images.

    Raises:
      UserError: the work directory, its checkpoint or its data is missing or invalid.
    """
    from artifacts_jax.configs import default
    from artifacts_jax.data import augment
    from artifacts_jax.data.splits import Datasets
    from artifacts_jax.devices.parallel import Devices
    from artifacts_jax.drawing import grids
    from artifacts_jax.pretraining import artifacts, held_out
    from artifacts_jax.training import keys, loop

    config, newer = configuration.load(workdir, default.get_config())
    if newer:
        print(f'{workdir} is older than these keys, which have their defaults: {", ".join(newer)}')
    if data_dir is not None:
        config.data.data_dir = data_dir and str(host.folder(data_dir, 'data_dir'))
    devices, datasets = Devices(config.parallel), Datasets(config)
    state = loop.load_newest_state(artifacts, config, workdir, devices)
    steps, step = config.artifacts.steps, int(state.step)
    print(f'{workdir}: {artifacts.NAME} at step {step:,} of {steps:,}{", incomplete" * (step < steps)}', flush=True)
    queries = held_out.choose_images(datasets['test'], examples, seed)
    out.mkdir(parents=True, exist_ok=True)  # an error should come before the computation
    plot = artifacts.make_plotter(config, devices, datasets, examples=examples, first_batch=seed)
    plot(state, keys.stage_key(config.seed + seed, artifacts.NAME), out)

    untrained = loop.make_initial_state(artifacts, config, devices, None)
    networks = {
        f'learned features, {layer} after {step:,} steps': artifacts.select_discriminator(state.variables),
        f'random network, {layer} before any step': artifacts.select_discriminator(untrained.variables),
    }
    images, labels, neighbours = find_neighbours(
        config, devices, datasets['probe_train'], networks, queries, layer=layer, k=NEIGHBOURS, limit=bank
    )
    names = [name.replace('_', ' ') for name in datasets['probe_train'].label_names]
    classes = np.array([*names, ''])  # index -1: images without a label

    def make_panels(indices):
        views = augment.test_view(config, images[indices.ravel()])
        return {'image': views.reshape(*indices.shape, *views.shape[1:]), 'label': classes[labels[indices]]}

    grids.plot_neighbours(
        out / 'neighbours.png',
        {'image': augment.test_view(config, queries['image']), 'label': classes[queries['label']]},
        {name: {**make_panels(indices), 'similarity': values} for name, (indices, values) in neighbours.items()},
        title=f'The nearest of {len(images):,} training images of {Path(config.data.name).name}, by cosine similarity'
        + ("; bold: the query's class" if names else ''),
    )
    print(f'the figures are in {out}')


def find_neighbours(
    config: ConfigDict, devices: Any, dataset: Any, networks: dict, queries: dict, *, layer: str, k: int, limit: int = 0
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Finds the nearest neighbours of query images in a split, with the features of every network.

    The measure is the cosine similarity of a layer's features, averaged over positions. Exact copies of a query are
    not its neighbours; there are copies if one split is both the training and the held-out split.

    Args:
      config: the run's configuration.
      devices: the mapping over devices.
      dataset: the split to search.
      networks: {name: a discriminator's variables}.
      queries: a batch, 'image' uint8 [M, H, W, 3].
      layer: one of LAYERS.
      k: number of neighbours per query.
      limit: number of images to search, from the start of the shuffled first epoch; 0 searches all.

    Returns:
      (searched images uint8 [N, H, W, 3], their labels [N], {name: (indices [M, k], similarities [M, k])}); the nearest
      neighbour is first.

    Raises:
      DataError: a query has fewer than k possible neighbours.
    """
    from artifacts_jax.data import splits
    from artifacts_jax.features import extraction
    from artifacts_jax.training import metrics

    extract = extraction.make_extractor(config, devices, 0)

    def compute_features(batch):
        return {name: extract(variables, batch)[0][layer] for name, variables in networks.items()}

    def compute_entries(batch):
        examples = {name: batch[name][batch['valid']] for name in ('image', 'label')}
        return {'image': examples.pop('image'), **compute_features(batch)}, examples

    count = min(limit or dataset.num_examples, dataset.num_examples)
    batches = _read_first_examples(dataset, count, config.probe.batch_size)
    bank, labels = extraction.collect_features(compute_entries, batches)
    images, query_features = bank['image'], compute_features(queries)
    is_copy = np.array([(images == query).all(axis=(1, 2, 3)) for query in queries['image']])
    if (~is_copy).sum(axis=1).min() < k:
        raise splits.DataError(
            f'{count} images are too few for {k} neighbours of each query, without its copies: use a larger --bank'
        )
    neighbours = {
        name: metrics.find_neighbours(bank[name], query_features[name], k=k, excluded=is_copy) for name in networks
    }
    return images, labels, {name: (np.asarray(i), np.asarray(values)) for name, (i, values) in neighbours.items()}


def _read_first_examples(dataset, count: int, batch_size: int) -> Iterator[dict]:
    """Yields batches of the first `count` examples of the first epoch; 'valid' is False for all later examples."""
    for start, batch in zip(range(0, count, batch_size), dataset.train_batches(batch_size)):
        yield {**batch, 'valid': start + np.arange(batch_size) < count}


def declare_flags() -> None:
    """Declares the flags; not at import, because other commands declare flags with the same names."""
    flags.DEFINE_string('workdir', None, 'directory of the run')
    flags.DEFINE_string('out', None, 'folder of the figures; default: WORKDIR/figures')
    flags.DEFINE_integer('examples', 8, 'number of held-out images in the figures', lower_bound=1, upper_bound=64)
    flags.DEFINE_integer(
        'seed',
        0,
        'selects images and masks; 0: those of the figures during training',
        lower_bound=0,
        upper_bound=2**31 - 1,
    )
    flags.DEFINE_enum('layer', LAYERS[-1], LAYERS, 'layer whose features define the nearest neighbours')
    flags.DEFINE_integer('bank', 5000, 'training images to search for neighbours; 0: all', lower_bound=0)
    flags.DEFINE_string('data_dir', None, 'new path of the data, if it has moved since the run')


def main():
    """Saves the figures of the work directory."""
    options = flags.FLAGS
    workdir = host.folder(options.workdir, 'workdir')
    out = workdir / 'figures' if options.out is None else host.folder(options.out, 'out')
    arguments = {name: options[name].value for name in ('examples', 'seed', 'layer', 'bank', 'data_dir')}
    write(workdir, out, **arguments)


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['workdir'])
