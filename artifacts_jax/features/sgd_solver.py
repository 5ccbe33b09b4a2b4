"""Multinomial logistic regression by SGD, on features too many for memory, of several layers in the same passes."""

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
    """Fits a classifier of each layer by SGD with momentum 0.9 and a learning rate that falls to 0 by a cosine.

    There are epochs + 2 passes over the features: the first for their mean and standard deviation, the last
    to pick the penalties. Unlike in fit_lbfgs there is no refit: held-out examples are not learnt from.

    Args:
      batches_fn: maps an epoch to its batches (features {layer: [b, D_layer]}, labels [b], held_out [b]); held_out may
        depend only on the example. The first and the last pass read epoch 0.
      dims: {layer: D_layer} of the layers to fit.
      num_classes: C.
      penalties: weights of the L2 penalty to pick from, for each layer; the earlier wins a tie.
      epochs: passes with updates.
      steps_per_epoch: batches in an epoch.
      learning_rate: the first learning rate, for standardised features.

    Returns:
      {layer: the classifier with the picked penalty}, the same as if each layer were fitted alone.

    Raises:
      ValueError: if an epoch has not steps_per_epoch batches, or no example is held out.
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

    def objective(params, features, labels, counted):
        targets = jax.nn.one_hot(labels, num_classes, axis=0) * linear.compute_weights(counted)[None]
        total = 0.0
        for layer, logits in project(params, features).items():
            squares = jnp.square(params[layer]['weights']).sum(axis=(1, 2))
            total += 0.5 * (jnp.asarray(penalties) * squares).sum()
            total -= (targets[None] * jax.nn.log_softmax(logits, axis=1)).sum()
        return total

    @jax.jit
    def update(params, state, features, labels, counted):
        # A sum of independent objectives: each layer's and penalty's classifier is trained as if it were alone.
        updates, state = optimiser.update(jax.grad(objective)(params, features, labels, counted), state)
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
        raise ValueError('no example is held out to pick the penalty: batches_fn should mark some')

    def pick(layer):
        best = int(correct[layer].argmax())
        accuracy = correct[layer][best] / count
        return linear.make_classifier(params[layer], best, *standards[layer], penalties[best], accuracy)

    return {layer: pick(layer) for layer in dims}


@jax.jit
def _merge_moments(count, mean, variance, features, counted):
    """Returns (count, mean, variance) with those of a batch merged in (Chan et al., 1979)."""
    batch_mean, batch_variance = linear.compute_moments(features, counted)
    total = count + counted.sum()
    part, difference = counted.sum() / jnp.maximum(total, 1), batch_mean - mean
    variance = (1 - part) * variance + part * batch_variance + part * (1 - part) * jnp.square(difference)
    return total, mean + part * difference, variance
