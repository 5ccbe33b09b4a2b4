"""The task `retrieval`: image retrieval with frozen features.

Queries are the test images. For each query, the images of data.probe_train (the gallery) are ranked by the cosine
similarity of their features; images with equal similarity keep the order of reading. Features are the average-pooled
maps of conv1 to conv5, L2-normalised.

The average precision of a query is the mean precision at the ranks of the gallery images of its class. Its recall at k
is 1 if one of the first k images has its class, as in metric learning (Jegou et al., TPAMI 2011; Oh Song et al., CVPR
2016).
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
SPLITS = ('probe_train', 'test')  # the splits of the data that this task needs
list_entries = list_networks
RECALLS = (1, 10)
RANKING_BYTES = 16  # memory that a query needs for each image of the gallery, while it is ranked


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the batch size is not divisible by the number of processes."""
    del devices
    processes.check_batch('retrieval.batch_size', config.retrieval.batch_size)


def open_data(config: ConfigDict, datasets: Datasets) -> Datasets:
    """Returns the data sets after checking labels and memory.

    Raises:
      DataError: there are no labels, or a class of the queries has no images in the gallery.
      ConfigError: the features of the gallery need too much memory.
    """
    splits.check_labels(config.data, datasets, stage=NAME)
    options, num_train = config.retrieval, datasets['probe_train'].num_examples
    bytes_per_image = sum(4 * size for size in extraction.compute_sizes(config, options.max_values).values())
    bytes_per_image += RANKING_BYTES * options.batch_size
    extraction.check_memory(
        config, NAME, bytes_per_image, min(options.max_train or num_train, num_train), split='train'
    )
    return datasets


def evaluate(run: Run, data: Datasets, entry: Entry) -> dict:
    """Ranks the gallery for every query, with the features of each layer of a network.

    Returns:
      {'dataset', 'train', 'test', 'layers': {layer: {'map' in %, 'recall': {k as text: in %}}}}.
    """
    config, options, variables = run.config, run.config.retrieval, entry.network.variables
    extract = partial(extraction.make_extractor(config, run.devices, options.max_values, unit_length=True), variables)
    batches = data['probe_train'].eval_batches(options.batch_size, limit=options.max_train)
    gallery, labels = extraction.collect_features(extract, batches)
    inputs = jax.device_put((variables, gallery, labels), run.devices.replicated)
    score_batch = run.devices.per_example(_make_scorer(config))
    batches = data['test'].eval_batches(options.batch_size, limit=options.max_test)
    scores = [score_batch(inputs, batch) for batch in batches]
    means = jax.tree.map(lambda *xs: 100 * np.concatenate(xs).mean(axis=0, dtype=np.float64), *scores)
    layers = {
        layer: {'map': float(x[0]), 'recall': {str(k): float(recall) for k, recall in zip(RECALLS, x[1:])}}
        for layer, x in means.items()
    }
    counts = {'train': len(labels), 'test': sum(len(batch['conv1']) for batch in scores)}
    return {'dataset': config.data.name, **counts, 'layers': layers}


def columns(row: dict) -> dict[str, str]:
    """Returns the table cells of one layer."""
    return {
        '': results.format_number(row['map'], 2),
        **{f'R@{k}': results.format_number(x, 2) for k, x in row['recall'].items()},
    }


def summary(row: dict) -> list[str]:
    """Returns the lines to print for a row: the mean average precision of each layer."""
    return [f'{layer} mAP {results.format_number(result["map"], 2)} %' for layer, result in row['layers'].items()]


def table(all_results: dict) -> str:
    """Returns the rows of all networks as a text table: mean average precisions and recalls in %."""
    networks = all_results[NAME]
    last = list(networks.values())[-1]
    rows = {name: {(layer,): result for layer, result in row['layers'].items()} for name, row in networks.items()}
    return (
        f'Retrieval with frozen features of {last["dataset"]}, {last["test"]:,} queries among {last["train"]:,} images;'
        f' mean average precision and recall at k in %\n\n{results.format_network_table(["layer"], rows, columns)}'
    )


def score_query(
    query: Float[Array, ' D'], label: Int32[Array, ''], gallery: Float[Array, 'N D'], labels: Int32[Array, ' N']
) -> Float32[Array, '3']:
    """Returns the average precision of a query and its recall at each k of RECALLS, in [0, 1].

    All values are 0 if a similarity is not finite, or if the gallery has no image of the query's class.

    Args:
      query: L2-normalised features of the query.
      label: the class of the query.
      gallery: L2-normalised features of the gallery.
      labels: the classes of the gallery.
    """
    similarity = jnp.einsum('d,nd->n', query, gallery, precision='highest')
    relevant = (labels == label)[jnp.argsort(-similarity, stable=True)]
    precision = relevant.cumsum() / jnp.arange(1, len(labels) + 1)
    average = jnp.where(relevant, precision, 0.0).sum() / jnp.maximum(relevant.sum(), 1)
    values = jnp.stack([average, *(relevant[:k].any() for k in RECALLS)])
    return jnp.where(jnp.isfinite(similarity).all(), values, 0.0).astype(jnp.float32)


def _make_scorer(config):
    """Returns score_batch((variables, gallery features, gallery labels), batch) -> {layer: scores}."""
    extract_maps = extraction.make_pooled_trunk(config, config.retrieval.max_values, unit_length=True)

    def score_batch(inputs, batch):
        variables, gallery, labels = inputs
        queries = extract_maps(variables, augment.test_view(config, batch['image']))
        score_queries = jax.vmap(score_query, (0, 0, None, None))
        return {layer: score_queries(queries[layer], batch['label'], gallery[layer], labels) for layer in queries}

    return score_batch
