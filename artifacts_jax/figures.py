"""Writes the figures of the paper from a run, finished or not, at the newest checkpoint of its artifacts stage.

python -m artifacts_jax.figures --workdir=runs/demo
python -m artifacts_jax.figures --workdir=runs/demo --out=talk --examples=4 --seed=1 --layer=conv3

WORKDIR/figures, or the folder that --out names, gets: artifacts.png (held-out images, damaged and repaired),
mask_prediction.png (what the discriminator makes of them), conv1.png (its first filters) and neighbours.png (nearest
neighbours by its features, and by a random network's).
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

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')  # as in extraction.py, which takes seconds to import
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
    """Writes the figures of a run.

    Args:
      workdir: the run's work directory.
      out: gets the PNG files.
      examples: how many held-out images are shown.
      seed: picks images and masks; 0 shows those that are drawn during training.
      layer: the layer whose features decide what is near.
      bank: how many training images neighbours are searched among, 0: all.
      data_dir: where the data is now, if not where the run had it: tfds's folder, or the folder of images.

    Raises:
      UserError: one of its kinds, with a message for the user.
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
    print(f'{workdir}: {artifacts.NAME} at step {step:,} of {steps:,}{", not finished" * (step < steps)}', flush=True)
    queries = held_out.choose_images(datasets['test'], examples, seed)
    out.mkdir(parents=True, exist_ok=True)  # now, not after all the work
    draw = artifacts.make_plotter(config, devices, datasets, examples=examples, first_batch=seed)
    draw(state, keys.stage_key(config.seed + seed, artifacts.NAME), out)

    untrained = loop.make_initial_state(artifacts, config, devices, None)
    networks = {
        f'learned features, {layer} after {step:,} steps': artifacts.select_discriminator(state.variables),
        f'random network, {layer} before any step': artifacts.select_discriminator(untrained.variables),
    }
    images, labels, found = nearest(
        config, devices, datasets['probe_train'], networks, queries, layer=layer, k=NEIGHBOURS, limit=bank
    )
    names = [name.replace('_', ' ') for name in datasets['probe_train'].label_names]
    classes = np.array([*names, ''])  # the last one is that of the label -1, unknown

    def shown(indices):
        views = augment.test_view(config, images[indices.ravel()])
        return {'image': views.reshape(*indices.shape, *views.shape[1:]), 'label': classes[labels[indices]]}

    grids.neighbours(
        out / 'neighbours.png',
        {'image': augment.test_view(config, queries['image']), 'label': classes[queries['label']]},
        {name: {**shown(indices), 'similarity': values} for name, (indices, values) in found.items()},
        title=f'The nearest of {len(images):,} training images of {Path(config.data.name).name}, by cosine similarity'
        + ("; bold: the query's class" if names else ''),
    )
    print(f'the figures are in {out}')


def nearest(
    config: ConfigDict, devices: Any, dataset: Any, networks: dict, queries: dict, *, layer: str, k: int, limit: int = 0
) -> tuple[np.ndarray, np.ndarray, dict]:
    """Finds the nearest neighbours of images in a split, by every network's features.

    Near is a large cosine similarity of a layer's maps, averaged over positions. A copy of the query, as there is when
    one split is both for training and held out, is none of its neighbours.

    Args:
      config: the run's configuration.
      devices: the mapping over devices.
      dataset: where neighbours are searched.
      networks: {name: a discriminator's variables}.
      queries: a batch, 'image' uint8 [M, H, W, 3].
      layer: one of LAYERS.
      k: how many neighbours.
      limit: search the first so many images of the split in the order of its first epoch, which is shuffled; 0: all.

    Returns:
      (images searched, uint8 [N, H, W, 3], their labels [N], {name: (indices [M, k], nearest first, similarities
      [M, k])}).

    Raises:
      DataError: fewer than k images can be neighbours of a query.
    """
    from artifacts_jax.data import splits
    from artifacts_jax.features import extraction
    from artifacts_jax.training import metrics

    extract = extraction.make_extractor(config, devices, 0)

    def features_of(batch):
        return {name: extract(variables, batch)[0][layer] for name, variables in networks.items()}

    def shown(batch):
        examples = {name: batch[name][batch['valid']] for name in ('image', 'label')}
        return {'image': examples.pop('image'), **features_of(batch)}, examples

    count = min(limit or dataset.num_examples, dataset.num_examples)
    batches = _first(dataset, count, config.probe.batch_size)
    bank, labels = extraction.collect_features(shown, batches)
    images, near = bank['image'], features_of(queries)
    copies = np.array([(images == query).all(axis=(1, 2, 3)) for query in queries['image']])
    if (~copies).sum(axis=1).min() < k:
        raise splits.DataError(f'{count} images are too few for {k} neighbours that are no copies: raise --bank')
    found = {name: metrics.find_neighbours(bank[name], near[name], k=k, excluded=copies) for name in networks}
    return images, labels, {name: (np.asarray(i), np.asarray(values)) for name, (i, values) in found.items()}


def _first(dataset, count: int, batch_size: int) -> Iterator[dict]:
    """Yields the first examples of the first epoch; the last batch's 'valid' leaves out those of the next."""
    for start, batch in zip(range(0, count, batch_size), dataset.train_batches(batch_size)):
        yield {**batch, 'valid': start + np.arange(batch_size) < count}


def declare_flags() -> None:
    """Declares the flags; not on import, where they would meet those of other commands of the same name."""
    flags.DEFINE_string('workdir', None, 'directory of the run')
    flags.DEFINE_string('out', None, 'folder for the figures; WORKDIR/figures by default')
    flags.DEFINE_integer('examples', 8, 'held-out images to show', lower_bound=1, upper_bound=64)
    flags.DEFINE_integer(
        'seed', 0, 'picks images and masks; 0: those drawn during training', lower_bound=0, upper_bound=2**31 - 1
    )
    flags.DEFINE_enum('layer', LAYERS[-1], LAYERS, 'layer whose features decide what is near')
    flags.DEFINE_integer('bank', 5000, 'training images that neighbours are searched among, 0: all', lower_bound=0)
    flags.DEFINE_string('data_dir', None, 'where the data is now, if not where the run had it')


def main():
    """Writes the figures."""
    given = flags.FLAGS
    workdir = host.folder(given.workdir, 'workdir')
    out = workdir / 'figures' if given.out is None else host.folder(given.out, 'out')
    options = {name: given[name].value for name in ('examples', 'seed', 'layer', 'bank', 'data_dir')}
    write(workdir, out, **options)


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['workdir'])
