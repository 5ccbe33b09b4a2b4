"""The rules that every transfer task follows, tested on the small work directories and data of tests/earlier."""

import itertools
from functools import partial

import jax
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import old_names, pipeline
from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.training import keys, loop, results
from tests.earlier import workdirs

TRAINED = ('stl10', 'layerwise', 'voc_classification', 'voc_detection', 'voc_segmentation')
EARLIER = (*TRAINED, 'knn', 'segmentation_probe', 'voc_svm')  # complete in the work directories of tests/earlier
TASKS = (*EARLIER, 'retrieval')


def test_every_task_is_tested_here():
    assert {task.NAME for task in pipeline.EVALUATIONS} == {*TASKS, 'probe'}


def configure(task):
    """Returns a configuration of a single task, for a new work directory."""
    config = workdirs.load(_completed(task), (task,))
    config.pretrained = 'pretraining/export'
    return config


def _completed(task):
    return next(
        (name for name, stages in workdirs.STAGES.items() if old_names.to_old_name(task) in stages), 'pretraining'
    )


@pytest.mark.parametrize('task', EARLIER)
def test_a_completed_task_is_not_run_again(task, earlier, monkeypatch):
    workdir = _completed(task)
    config = workdirs.load(workdir, (task,))
    for owner, name in ((loop, 'run'), (splits, 'load'), (Devices, 'per_example'), (Devices, 'train_step')):
        monkeypatch.setattr(owner, name, None)  # nothing is trained, read or computed
    written = []
    monkeypatch.setattr(results, 'write', lambda workdir, found: written.append(found))
    before = results.read(earlier / workdir)
    assert pipeline.run(config, workdir)[task] == before[task]
    assert all(found == before for found in written)


REFUSED = {
    'a split that is not there': {'data.test': 'nowhere'},
    'data that are not there': {'data.name': '/nowhere'},
    'an export that is not there': {'pretrained': '/nowhere'},
    'an image size of none': {'data.size': 0},
}


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('what', REFUSED)
def test_invalid_settings_are_refused_in_one_line_and_nothing_is_written(task, what, earlier_data, tmp_path):
    config = configure(task)
    config.update_from_flattened_dict(REFUSED[what])
    _check_refused(config, next(iter(REFUSED[what].values())), tmp_path)


@pytest.mark.parametrize('task', TRAINED)
def test_a_batch_that_does_not_divide_by_the_devices_is_refused(task, earlier_data, tmp_path):
    config = configure(task)
    config[task].batch_size = 6
    _check_refused(config, f'{task}.batch_size=6 is not divisible by the 4 devices; use 8', tmp_path)


@pytest.mark.parametrize(
    'task', [task for task in TASKS if task not in ('stl10', 'knn', 'retrieval', 'voc_segmentation')]
)
def test_crops_that_the_trunk_cannot_take_are_refused(task, earlier_data, tmp_path):
    config = configure(task)
    key = {'segmentation_probe': 'size', 'voc_detection': 'scales'}.get(task, 'crop_size')
    config[task][key] = (3,) if key == 'scales' else 3
    _check_refused(config, f'{key}=3: too small for the trunk', tmp_path)


def _check_refused(config, message, tmp_path):
    with pytest.raises(configuration.UserError) as refused:
        pipeline.run(configuration.check(config), tmp_path / 'new')
    text = str(refused.value)
    assert str(message) in text, text
    assert '\n' not in text
    assert not (tmp_path / 'new' / 'config.json').exists()


class CapturedError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize('task', TRAINED)
def test_two_steps_on_four_devices_equal_those_on_one(task, earlier_data, tmp_path, monkeypatch):
    captured = []

    def capture(stage, config, workdir, devices, datasets, base, **options):
        captured.append((stage, config, datasets['train'], base))
        raise CapturedError

    monkeypatch.setattr(loop, 'run', capture)
    config = configure(task)
    config.stl10.protocols = ('finetune',)
    config.optim.epsilon = 1e-2
    if 'learning_rate' in config[task]:
        config[task].learning_rate = 1e-2  # so that two steps move more than rounding
    with pytest.raises(CapturedError):
        pipeline.run(config, tmp_path / 'new')
    ((stage, config, dataset, base),) = captured
    batches = list(itertools.islice(dataset.train_batches(stage.get_steps_and_batch_size(config)[1]), 2))
    key, ended = keys.stage_key(config.seed, stage.NAME), []
    base = jax.tree.map(np.asarray, base)
    for devices in (Devices('jit', jax.devices()[:1]), Devices('jit'), Devices('pmap')):
        state = loop.make_initial_state(stage, config, devices, jax.device_put(base, devices.replicated))
        begun = jax.tree.map(np.array, state.params)
        step = devices.train_step(partial(stage.train_step, config=config))
        for batch in batches:
            state, values = step(state, devices.put(batch), key)
        ended.append(jax.tree.map(np.asarray, (state.variables, values)))
    expected, *others = ended
    learned = {network: expected[0]['params'][network] for network in begun}
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool(np.not_equal(a, b).any()), begun, learned)))
    for found in others:
        jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-5), found, expected)
