"""The training of a classifier on the trunk, by one of two protocols.

'linear' (the authors' 2019 code): the trunk is frozen, and one fully connected layer is trained. 'finetune' (their 2018
code): three fully connected layers are trained together with the whole trunk.
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
    """The stage that trains one classifier. Its networks are 'trunk' and 'head'."""

    protocol: str  # 'linear' or 'finetune'
    num_images: int  # number of training images
    num_classes: int

    PROGRESS_METRICS = {'accuracy': 'accuracy'}  # noqa: RUF012 (ClassVar, as in TrunkStage)
    ACCUMULATES = True
    GRAD_NORMS = 'per_network'

    def get_steps_and_batch_size(self, config):
        """As TrunkStage.get_steps_and_batch_size. As in the reference code, an epoch has only full batches."""
        batch_size = config.stl10.batch_size
        return max(1, self.num_images // batch_size) * config.stl10.epochs, batch_size

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: each kind of the trunk's variables is either trained or frozen."""
        size = config.model.image_size
        initial = self._make_model(config).init(key, jnp.zeros((1, size, size, 3)))
        trained, frozen = {}, {}
        for kind, tree in trunk.items():
            head = {name: tree for name, tree in initial[kind].items() if name == 'head'}
            is_trained = kind in self._trained_kinds(config)
            trained[kind] = {**head, **({'trunk': tree} if is_trained else {})}
            frozen[kind] = {} if is_trained else {'trunk': tree}
        return trained, frozen

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: Adam."""
        steps, _ = self.get_steps_and_batch_size(config)
        return optim.adam(optim.schedule(config.stl10.learning_rate, steps, config), config)

    def prepare_inputs(self, variables, batch, key, step, *, config, axis_name):
        """As TrunkStage.prepare_inputs: augmented images, labels, and random keys for dropout."""
        del variables, axis_name
        augment_keys, *dropout_keys = keys.example_keys(key, step, batch['index'], 3)
        return augment.training_view(config, augment_keys, batch['image']), batch['label'], *dropout_keys

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: cross-entropy, and L2 penalty of the trained weights."""
        images, labels, *dropout_keys = inputs
        trained_kinds = self._trained_kinds(config)
        logits, updates = self._make_model(config, axis_name).apply(
            variables, images, train='batch_stats' in trained_kinds, dropout_keys=dropout_keys, mutable=['batch_stats']
        )
        trained = variables['params'] if 'params' in trained_kinds else {'head': variables['params']['head']}
        values = {
            'loss/class': mean(losses.class_loss(logits, labels), axis_name),
            'loss/l2': share(config.optim.l2 * losses.l2(trained), axis_name),
            'accuracy': mean((logits.argmax(-1) == labels).astype(jnp.float32), axis_name),
        }
        return values, updates['batch_stats']

    def compute_metrics(self, outputs, dataset):
        """As TrunkStage.compute_metrics: the accuracy, in [0, 1], from the counts of `make_counter`."""
        del dataset
        correct, examples = outputs
        return {'accuracy': correct / examples}

    def _make_model(self, config, axis_name=None):
        return architecture.make_classifier(self.protocol, self.num_classes, config=config, axis_name=axis_name)

    def _trained_kinds(self, config):
        """Returns the kinds of trunk variables ('params', 'batch_stats') that training changes."""
        if self.protocol == 'finetune':
            return 'params', 'batch_stats'
        # The 2019 code freezes the weights, but runs the batch norm of conv5 in training mode.
        return ('batch_stats',) if config.stl10.batch_norm == 'reference' else ()


def make_counter(protocol: str, num_classes: int, config: ConfigDict, devices: Devices) -> Callable:
    """Returns count_correct(variables, dataset, limit=0) -> (correct predictions, examples).

    It counts the first `limit` examples, or all examples if `limit` is 0.
    """
    model = architecture.make_classifier(protocol, num_classes, config=config)

    def is_correct(variables, batch):
        return model.apply(variables, augment.test_view(config, batch['image'])).argmax(-1) == batch['label']

    compiled = devices.per_example(is_correct)

    def count_correct(variables, dataset, limit=0):
        batches = dataset.eval_batches(config.stl10.batch_size, limit=limit)
        correct = np.concatenate([compiled(variables, batch) for batch in batches])
        return int(correct.sum()), len(correct)

    return count_correct
