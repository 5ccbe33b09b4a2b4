"""The training of a classifier on the trunk: frozen under one layer, or fine-tuned under three.

Two protocols. 'linear' (the authors' 2019 code): the trunk is frozen and one fully connected layer is trained.
'finetune' (their 2018 code): three fully connected layers, and the whole trunk is trained with them.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from artifacts_jax.data import augment
from artifacts_jax.devices.parallel import Devices, accumulated, mean, share, total
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import artifacts, losses, optim
from artifacts_jax.training import keys
from artifacts_jax.training.state import State


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training of a classifier, as loop.run takes it. Its networks are 'trunk' and 'head'."""

    NAME: str  # transfer/PROTOCOL/PART, also its folder
    protocol: str  # 'linear' or 'finetune'
    images: int  # training images
    classes: int
    count: Callable | None = None  # of `counter`, for evaluation; the stages of a protocol share it, compiled once

    BASE = artifacts
    SHOWN = {'accuracy': 'accuracy'}  # noqa: RUF012 (of every stage; a dataclass has no type for it)

    def plan(self, config: ConfigDict) -> tuple[int, int]:
        """Returns (steps, images in a global batch); as in the reference, an epoch has whole batches only."""
        batch_size = config.transfer.batch_size
        return max(1, self.images // batch_size) * config.transfer.epochs, batch_size

    def init_state(self, key: Key[Array, ''], base: dict, *, config: ConfigDict) -> State:
        """Returns the state at step 0.

        Args:
          key: draws the weights of the head.
          base: the variables of the artifacts stage, whose trunk this one starts from.
          config: the run's configuration.
        """
        size = config.model.image_size
        drawn = architecture.make_classifier(self.protocol, self.classes, config=config).init(
            key, jnp.zeros((1, size, size, 3))
        )
        trained, frozen = {}, {}
        for kind, tree in artifacts.discriminator(base).items():
            trunk = {'trunk': tree['trunk']}
            head = {name: tree for name, tree in drawn[kind].items() if name == 'head'}
            changes = kind in self._changing(config)
            trained[kind], frozen[kind] = {**head, **(trunk if changes else {})}, {} if changes else trunk
        return State.create(trained, {tuple(trained['params']): self._optimiser(config)}, ema=False, frozen=frozen)

    def train_step(
        self, state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
    ) -> tuple[State, dict]:
        """One update on augmented images: minimises cross-entropy + L2 of the weights that are trained.

        Args:
          state: with the networks 'head' and, trained or frozen, 'trunk'.
          batch: 'image' uint8 [B, H, W, 3], 'label' int32 [B] and 'index' int32 [B], this device's part of the batch.
          key: the stage's key.
          config: the run's configuration.
          axis_name: the devices' axis under pmap.

        Returns:
          (state, {name: scalar}).
        """
        augment_keys, *dropout_keys = keys.example_keys(key, state.step, batch['index'], 3)
        images = augment.training_view(config, augment_keys, batch['image'])
        model, variables = (
            architecture.make_classifier(self.protocol, self.classes, config=config, axis_name=axis_name),
            state.variables,
        )

        def loss(params, part):
            images, labels, *dropout_keys = part
            logits, updates = model.apply(
                {**variables, 'params': {**variables['params'], **params}},
                images,
                train='batch_stats' in self._changing(config),
                dropout_keys=dropout_keys,
                mutable=['batch_stats'],
            )
            terms = {
                'loss/class': mean(losses.class_loss(logits, labels), axis_name),
                'loss/l2': share(config.optim.l2 * losses.l2(params), axis_name),
            }
            right = mean((logits.argmax(-1) == labels).astype(jnp.float32), axis_name)
            return sum(terms.values()), ({**terms, 'accuracy': right}, updates['batch_stats'])

        gradients = partial(jax.grad(loss, has_aux=True), state.params)
        whole = (images, batch['label'], *dropout_keys)
        grads, (values, batch_stats) = accumulated(gradients, config.accumulate, whole)
        grads, values = total((grads, values), axis_name)
        new = state.descend(self._optimiser(config), grads).replace(
            step=state.step + 1, batch_stats={name: batch_stats[name] for name in state.batch_stats}
        )
        return new, {**values, **{f'grad_norm/{name}': optax.tree.norm(grads[name]) for name in grads}}

    def evaluator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns evaluate(state, key) -> {'accuracy': in [0, 1]} on some of the test images."""
        del devices

        def evaluate(state, key):
            del key
            correct, examples = self.count(state.variables, datasets['test'], config.eval_examples)
            return {'accuracy': correct / examples}

        return evaluate

    def illustrator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns draw(state, key, folder), which draws nothing: the loop draws the curves."""
        del config, devices, datasets
        return lambda state, key, folder: None

    def _changing(self, config):
        """Returns the kinds of the trunk's variables that training changes."""
        if self.protocol == 'finetune':
            return 'params', 'batch_stats'
        # The 2019 code runs conv5's batch norm in training mode over the frozen weights.
        return ('batch_stats',) if config.transfer.batch_norm == 'reference' else ()

    def _optimiser(self, config):
        steps, _ = self.plan(config)
        return optim.adam(optim.schedule(config.transfer.learning_rate, steps, config), config)


def counter(protocol: str, classes: int, config: ConfigDict, devices: Devices) -> Callable:
    """Returns count(variables, dataset, limit=0) -> (correct, examples), of the first `limit` or all examples."""
    model = architecture.make_classifier(protocol, classes, config=config)

    def judge(variables, batch):
        return model.apply(variables, augment.test_view(config, batch['image'])).argmax(-1) == batch['label']

    mapped = devices.per_example(judge)

    def count(variables, dataset, limit=0):
        batches = dataset.eval_batches(config.transfer.batch_size, limit=limit)
        right = np.concatenate([mapped(variables, batch) for batch in batches])
        return int(right.sum()), len(right)

    return count
