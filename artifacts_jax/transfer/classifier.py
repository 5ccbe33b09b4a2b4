"""The training of a classifier on the trunk: frozen under one layer, or fine-tuned under three.

Two protocols. 'linear' (the authors' 2019 code): the trunk is frozen and one fully connected layer is trained.
'finetune' (their 2018 code): three fully connected layers, and the whole trunk is trained with them.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import augment
from artifacts_jax.devices.parallel import Devices, mean, share
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import losses, optim
from artifacts_jax.training import keys
from artifacts_jax.transfer.stage import TrunkStage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(TrunkStage):
    """One training of a classifier. Its networks are 'trunk' and 'head'."""

    protocol: str  # 'linear' or 'finetune'
    images: int  # training images
    classes: int

    PROGRESS_METRICS = {'accuracy': 'accuracy'}  # noqa: RUF012 (ClassVar, as in TrunkStage)
    ACCUMULATES = True
    GRAD_NORMS = 'per_network'

    def plan(self, config):
        """As TrunkStage.plan; as in the reference, an epoch has whole batches only."""
        batch_size = config.stl10.batch_size
        return max(1, self.images // batch_size) * config.stl10.epochs, batch_size

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: the trunk's are trained or frozen, by kind."""
        size = config.model.image_size
        drawn = self._model(config).init(key, jnp.zeros((1, size, size, 3)))
        trained, frozen = {}, {}
        for kind, tree in trunk.items():
            head = {name: tree for name, tree in drawn[kind].items() if name == 'head'}
            changes = kind in self._changing(config)
            trained[kind] = {**head, **({'trunk': tree} if changes else {})}
            frozen[kind] = {} if changes else {'trunk': tree}
        return trained, frozen

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: Adam."""
        steps, _ = self.plan(config)
        return optim.adam(optim.schedule(config.stl10.learning_rate, steps, config), config)

    def prepare_inputs(self, variables, batch, key, step, *, config, axis_name):
        """As TrunkStage.prepare_inputs: augmented images, labels, and keys for dropout."""
        del variables, axis_name
        augment_keys, *dropout_keys = keys.example_keys(key, step, batch['index'], 3)
        return augment.training_view(config, augment_keys, batch['image']), batch['label'], *dropout_keys

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: cross-entropy, and L2 of the weights that are trained."""
        images, labels, *dropout_keys = inputs
        changing = self._changing(config)
        logits, updates = self._model(config, axis_name).apply(
            variables, images, train='batch_stats' in changing, dropout_keys=dropout_keys, mutable=['batch_stats']
        )
        trained = variables['params'] if 'params' in changing else {'head': variables['params']['head']}
        values = {
            'loss/class': mean(losses.class_loss(logits, labels), axis_name),
            'loss/l2': share(config.optim.l2 * losses.l2(trained), axis_name),
            'accuracy': mean((logits.argmax(-1) == labels).astype(jnp.float32), axis_name),
        }
        return values, updates['batch_stats']

    def compute_metrics(self, predicted, dataset):
        """Returns the accuracy, in [0, 1], of what `counter` counts."""
        del dataset
        correct, examples = predicted
        return {'accuracy': correct / examples}

    def _model(self, config, axis_name=None):
        return architecture.make_classifier(self.protocol, self.classes, config=config, axis_name=axis_name)

    def _changing(self, config):
        """Returns the kinds of the trunk's variables that training changes."""
        if self.protocol == 'finetune':
            return 'params', 'batch_stats'
        # The 2019 code runs conv5's batch norm in training mode over the frozen weights.
        return ('batch_stats',) if config.stl10.batch_norm == 'reference' else ()


def counter(protocol: str, classes: int, config: ConfigDict, devices: Devices) -> Callable:
    """Returns count(variables, dataset, limit=0) -> (correct, examples), of the first `limit` or all examples."""
    model = architecture.make_classifier(protocol, classes, config=config)

    def judge(variables, batch):
        return model.apply(variables, augment.test_view(config, batch['image'])).argmax(-1) == batch['label']

    mapped = devices.per_example(judge)

    def count(variables, dataset, limit=0):
        batches = dataset.eval_batches(config.stl10.batch_size, limit=limit)
        right = np.concatenate([mapped(variables, batch) for batch in batches])
        return int(right.sum()), len(right)

    return count
