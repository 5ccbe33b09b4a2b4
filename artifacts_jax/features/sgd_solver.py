"""Multinomial logistic regression by SGD, for features that do not fit into memory; fits several layers at once."""

from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from artifacts_jax.features import linear


def fit_sgd(
    batches_fn: Callable[[int], Iterable[tuple]],
    *,
    dims: dict[str, int],
    num_classes: int,
    penalties: tuple,
    epochs: int,
    steps_per_epoch: int,
    learning_rate: float,
) -> dict[str, linear.Classifier]:
    """Fits one classifier per layer by SGD with momentum 0.9 and cosine decay of the learning rate to 0.

    There are epochs + 2 passes over the features. The first pass computes their mean and standard deviation. The last
    pass picks the penalties. Unlike fit_lbfgs, it does not fit again: held-out examples are never used for training.

    Args:
      batches_fn: maps an epoch to its batches (features {layer: [b, D_layer]}, labels [b], held_out [b]); held_out may
        depend only on the example. The first and the last pass use epoch 0.
      dims: {layer: D_layer}.
      num_classes: the number of classes C.
      penalties: candidates for the weight of the L2 penalty of each layer; the first of equally good ones is picked.
      epochs: the number of passes with updates.
      steps_per_epoch: the number of batches in an epoch.
      learning_rate: the initial learning rate, for standardised features.

    Returns:
      {layer: the classifier with the picked penalty}. The result is equal to that of a separate fit for each layer.

    Raises:
      ValueError: an epoch does not have steps_per_epoch batches, or no example is held out.
    """
    optimiser = optax.sgd(optax.cosine_decay_schedule(learning_rate, epochs * steps_per_epoch), momentum=0.9)

    def batches(epoch):
        steps = 0
        for features, *rest in batches_fn(epoch):
            yield {layer: jnp.asarray(features[layer], jnp.float32) for layer in dims}, *map(jnp.asarray, rest)
            steps += 1
        if steps != steps_per_epoch:
            raise ValueError(f'epoch {epoch} has {steps} batches, not steps_per_epoch={steps_per_epoch}')

    moments = {layer: (jnp.zeros(()), jnp.zeros(dim), jnp.zeros(dim)) for layer, dim in dims.items()}
    for features, _, held_out in batches(0):
        moments = {layer: _merge_moments(*moments[layer], features[layer], ~held_out) for layer in dims}
    standards = {layer: (mean, linear.compute_scale(variance)) for layer, (_, mean, variance) in moments.items()}

    def project(params, features):
        return {layer: linear.project(params[layer], *standards[layer], features[layer]) for layer in dims}

    def objective(params, features, labels, included):
        targets = jax.nn.one_hot(labels, num_classes, axis=0) * linear.compute_weights(included)[None]
        total = 0.0
        for layer, logits in project(params, features).items():
            squares = jnp.square(params[layer]['weights']).sum(axis=(1, 2))
            total += 0.5 * (jnp.asarray(penalties) * squares).sum()
            total -= (targets[None] * jax.nn.log_softmax(logits, axis=1)).sum()
        return total

    @jax.jit
    def update(params, state, features, labels, included):
        # The objectives of all layers and penalties are independent; their sum trains each classifier separately.
        updates, state = optimiser.update(jax.grad(objective)(params, features, labels, included), state)
        return optax.apply_updates(params, updates), state

    params = {layer: linear.init_params(len(penalties), num_classes, dim) for layer, dim in dims.items()}
    state = optimiser.init(params)
    for epoch in range(epochs):
        for features, labels, held_out in batches(epoch):
            params, state = update(params, state, features, labels, ~held_out)

    correct, count = {layer: np.zeros(len(penalties), int) for layer in dims}, 0
    for features, labels, held_out in batches(0):
        for layer, logits in project(params, features).items():
            correct[layer] += np.asarray(linear.count_correct(logits, labels, held_out))
        count += int(held_out.sum())
    if not count:
        raise ValueError(
            'no example is held out to pick the penalty: held_out of batches_fn must be True for some examples'
        )

    def pick(layer):
        best = int(correct[layer].argmax())
        accuracy = correct[layer][best] / count
        return linear.make_classifier(params[layer], best, *standards[layer], penalties[best], accuracy)

    return {layer: pick(layer) for layer in dims}


@jax.jit
def _merge_moments(count, mean, variance, features, included):
    """Returns (count, mean, variance) of the examples so far and of a batch together (Chan et al., 1979)."""
    batch_mean, batch_variance = linear.compute_moments(features, included)
    total = count + included.sum()
    fraction, difference = included.sum() / jnp.maximum(total, 1), batch_mean - mean
    variance = (
        (1 - fraction) * variance + fraction * batch_variance + fraction * (1 - fraction) * jnp.square(difference)
    )
    return total, mean + fraction * difference, variance
