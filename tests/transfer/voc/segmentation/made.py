"""What several tests share: a small configuration of the task, and what it starts from."""

import jax

from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop
from tests.conftest import tiny

ONE = Devices('jit', jax.devices()[:1])


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('voc_segmentation',), 'random'
    config.data.update(name=str(folder), probe_train='train', test='val', workers=2)
    config.voc_segmentation.update(steps=6, batch_size=4, hidden=8)
    config.voc_segmentation.update(options)
    config.eval_every = 100
    return config


def start():
    """The variables of an artifacts stage that has learned nothing."""
    return loop.initial(artifacts, tiny(), ONE, None).variables
