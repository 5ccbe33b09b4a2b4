"""The task: retrieval by frozen features: test images are queries, and images of their class should come first.

Features are the average-pooled maps of conv1 to conv5, of length 1. data.probe_train, the gallery, is ranked by their
cosine similarity with those of a query, images of equal similarity as they come. The average precision of a query is
the mean, over the gallery's images of its class, of the precision at their ranks; its recall at k is 1 if one of the
first k is of its class, as in metric learning (Jegou et al., TPAMI 2011; Oh Song et al., CVPR 2016).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32
from ml_collections import ConfigDict

from artifacts_jax.data import augment, splits
from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import extraction
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Run, list_networks

NAME = 'retrieval'
SPLITS = ('probe_train', 'test')  # of the data, that it needs
entries = list_networks
RECALLS = (1, 10)
RANKED = 16  # bytes that a query needs for each image that it ranks


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the processes."""
    del devices
    processes.check_batch('retrieval.batch_size', config.retrieval.batch_size)


def open_data(config: ConfigDict, datasets: Datasets) -> Datasets:
    """Returns the data sets, which have labels, and a gallery whose features fit into memory.

    Raises:
      DataError: there are no labels, or queries of classes that the gallery lacks.
      ConfigError: the gallery's features need too much memory.
    """
    splits.check_labels(config.data, datasets, stage=NAME)
    options, count = config.retrieval, datasets['probe_train'].num_examples
    each = sum(4 * size for size in extraction.compute_sizes(config, options.max_values).values())
    each += RANKED * options.batch_size
    extraction.check_memory(config, NAME, each, min(options.max_train or count, count), split='train')
    return datasets


def evaluate(run: Run, data: Datasets, entry: Entry) -> dict:
    """Ranks the gallery for every query, by every layer of a network.

    Returns:
      {'dataset', 'train', 'test', 'layers': {layer: {'map' in %, 'recall': {k as text: in %}}}}.
    """
    config, options, variables = run.config, run.config.retrieval, entry.network.variables
    extract = partial(extraction.make_extractor(config, run.devices, options.max_values, unit_length=True), variables)
    batches = data['probe_train'].eval_batches(options.batch_size, limit=options.max_train)
    gallery, labels = extraction.collect_features(extract, batches)
    inputs = jax.device_put((variables, gallery, labels), run.devices.replicated)
    judge = run.devices.per_example(_judge(config))
    batches = data['test'].eval_batches(options.batch_size, limit=options.max_test)
    parts = [judge(inputs, batch) for batch in batches]
    found = jax.tree.map(lambda *xs: 100 * np.concatenate(xs).mean(axis=0, dtype=np.float64), *parts)
    layers = {
        layer: {'map': float(x[0]), 'recall': {str(k): float(recall) for k, recall in zip(RECALLS, x[1:])}}
        for layer, x in found.items()
    }
    counts = {'train': len(labels), 'test': sum(len(part['conv1']) for part in parts)}
    return {'dataset': config.data.name, **counts, 'layers': layers}


def columns(row: dict) -> dict[str, str]:
    """Returns the cells of a layer's row."""
    return {
        '': results.format_number(row['map'], 2),
        **{f'R@{k}': results.format_number(x, 2) for k, x in row['recall'].items()},
    }


def summary(row: dict) -> list[str]:
    """Returns the mean average precision of each layer."""
    return [f'{layer} mAP {results.format_number(each["map"], 2)} %' for layer, each in row['layers'].items()]


def table(found: dict) -> str:
    """Returns the rows of all networks as a table of text: mean average precisions and recalls in %."""
    networks = found[NAME]
    last = list(networks.values())[-1]
    rows = {name: {(layer,): each for layer, each in row['layers'].items()} for name, row in networks.items()}
    return (
        f'Retrieval by frozen features of {last["dataset"]}, {last["test"]:,} queries among {last["train"]:,} images;'
        f' mean average precision and recall at k in %\n\n{results.format_network_table(["layer"], rows, columns)}'
    )


def score_query(
    query: Float[Array, ' D'], label: Int32[Array, ''], gallery: Float[Array, 'N D'], labels: Int32[Array, ' N']
) -> Float32[Array, '3']:
    """Returns the average precision of a query, and its recall at each of RECALLS, in [0, 1].

    A query that has a neighbour at no number, or of whose class the gallery has no image, has 0.

    Args:
      query: its features, of length 1.
      label: its class.
      gallery: features of length 1.
      labels: their classes.
    """
    similarity = jnp.einsum('d,nd->n', query, gallery, precision='highest')
    relevant = (labels == label)[jnp.argsort(-similarity, stable=True)]
    precision = relevant.cumsum() / jnp.arange(1, len(labels) + 1)
    average = jnp.where(relevant, precision, 0.0).sum() / jnp.maximum(relevant.sum(), 1)
    values = jnp.stack([average, *(relevant[:k].any() for k in RECALLS)])
    return jnp.where(jnp.isfinite(similarity).all(), values, 0.0).astype(jnp.float32)


def _judge(config):
    """Returns a function((variables, the gallery's features and labels), batch) -> {layer: what `rank` does}."""
    maps = extraction.make_pooled_trunk(config, config.retrieval.max_values, unit_length=True)

    def judge(inputs, batch):
        variables, gallery, labels = inputs
        queries = maps(variables, augment.test_view(config, batch['image']))

        ranked = jax.vmap(score_query, (0, 0, None, None))
        return {layer: ranked(queries[layer], batch['label'], gallery[layer], labels) for layer in queries}

    return judge
