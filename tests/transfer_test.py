import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from artifacts_jax import (
    artifacts,
    augment,
    data,
    export,
    heads,
    keys,
    losses,
    models,
    pipeline,
    report,
    train,
    transfer,
)
from artifacts_jax import config as configuration
from artifacts_jax.parallel import Devices
from tests.conftest import tiny

PROTOCOLS = ('linear', 'finetune', 'reference')  # the last: linear, with conv5's batch norm as in the 2019 code


def settings(protocol):
    """(config, stage) of a protocol on the tiny network, five classes."""
    config = tiny()
    config.transfer.update(epochs=3, batch_size=8, hidden=16)
    if protocol == 'reference':
        protocol, config.transfer.batch_norm = 'linear', 'reference'
    return config, transfer.Stage(f'transfer/{protocol}/all', protocol, images=20, classes=5)


@pytest.fixture(scope='module')
def labelled(batch):
    return {**batch, 'label': np.arange(8, dtype=np.int32) % 5}


@pytest.fixture(scope='module')
def steps(stage_states, labelled):
    """{protocol: (state before, state after, metrics)} of the first step, jitted on one device."""
    found = {}
    for protocol in PROTOCOLS:
        config, stage = settings(protocol)
        key = keys.stage_key(0, stage.NAME)
        before = jax.jit(partial(stage.init_state, config=config))(key, stage_states[artifacts].variables)
        found[protocol] = before, *jax.jit(partial(stage.train_step, config=config))(before, labelled, key)
    return found


def changed(before, after):
    """The paths of the leaves that differ, in any bit."""
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return {jax.tree_util.keystr(path, simple=True, separator='/') for (path, a), b in leaves if (a != b).any()}


def test_linear_trains_the_head_alone(steps):
    before, after, _ = steps['linear']
    assert changed(before.variables, after.variables) == {'params/head/fc/kernel', 'params/head/fc/bias'}


def test_reference_batch_norm_changes_the_statistics_of_norm5_besides(steps):
    before, after, _ = steps['reference']
    assert changed(before.variables, after.variables) == {
        'params/head/fc/kernel',
        'params/head/fc/bias',
        'batch_stats/trunk/norm5/mean',
        'batch_stats/trunk/norm5/var',
    }


def test_fine_tuning_trains_everything(steps):
    before, after, _ = steps['finetune']
    everything = jax.tree_util.tree_leaves_with_path(before.variables)
    moved = changed(before.variables, after.variables)
    assert moved == {jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in everything}


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_the_trunk_begins_as_it_was_learned(steps, stage_states, protocol):
    found, learned = steps[protocol][0].variables, artifacts.discriminator(stage_states[artifacts].variables)
    for kind in ('params', 'batch_stats'):
        jax.tree.map(np.testing.assert_array_equal, found[kind]['trunk'], learned[kind]['trunk'])


@pytest.mark.parametrize('protocol', PROTOCOLS)
def test_step_is_adam_on_cross_entropy_and_l2(steps, labelled, protocol):
    before, after, values = steps[protocol]
    config, stage = settings(protocol)
    example_keys = keys.example_keys(keys.stage_key(0, stage.NAME), 0, labelled['index'], 3)
    images = augment.training_view(config, example_keys[0], labelled['image'])
    head = heads.LinearHead(5) if stage.protocol == 'linear' else heads.FineTuneHead(5, 16)

    def loss(params):
        parts = {
            name: {'params': params.get(name, before.variables['params'][name]), 'batch_stats': stats}
            for name, stats in {'head': {}, **before.variables['batch_stats']}.items()
        }
        train = protocol != 'linear'
        (conv5, _), _ = models.make_trunk(config).apply(parts['trunk'], images, train=train, mutable=['batch_stats'])
        logits, _ = head.apply(
            parts['head'], conv5, train=train, dropout_keys=example_keys[1:], mutable=['batch_stats']
        )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labelled['label'][:, None], axis=1)
        return 5e-5 * losses.l2(params) - chosen.mean()

    value, grads = jax.jit(jax.value_and_grad(loss))(before.params)
    np.testing.assert_allclose(values['loss/class'] + values['loss/l2'], value, rtol=1e-5)
    for name in grads:
        np.testing.assert_allclose(values[f'grad_norm/{name}'], optax.tree.norm(grads[name]), rtol=1e-4)
    (moments,) = jax.tree.leaves(after.opt_state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))[:1]
    bias = ('fc', 'bias') if stage.protocol == 'linear' else ('fc3', 'bias')
    twice = 2 * grads['head'][bias[0]]['bias']  # gradients of biases are doubled
    np.testing.assert_allclose(moments.mu['head'][bias[0]]['bias'], 0.5 * twice, atol=1e-6)


@pytest.mark.parametrize('protocol', ['reference', 'finetune'])
def test_pmap_on_four_devices_equals_jit_on_one(steps, stage_states, labelled, protocol):
    config, stage = settings(protocol)
    before, after, values = steps[protocol]
    devices = Devices('pmap')
    assert len(devices.devices) == 4
    step = devices.train_step(partial(stage.train_step, config=config))
    mapped, mapped_values = step(before, devices.put(labelled), keys.stage_key(0, stage.NAME))
    for name, value in values.items():
        np.testing.assert_allclose(mapped_values[name], value, rtol=1e-4, err_msg=name)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), mapped.batch_stats, after.batch_stats)
    for network in after.params:
        # The first step of Adam is near the sign of the gradient: rounding decides where that is next to nothing.
        pairs = zip(jax.tree.leaves(mapped.params[network]), jax.tree.leaves(after.params[network]))
        close = np.concatenate([np.ravel(np.abs(a - b) < 1e-5) for a, b in pairs])
        assert close.mean() > 0.99


def test_an_epoch_has_whole_batches_and_at_least_one():
    config, stage = settings('linear')
    assert stage.plan(config) == (2 * 3, 8)
    assert transfer.Stage('transfer/linear/fold_1', 'linear', images=7, classes=5).plan(config) == (3, 8)
    default = configuration.ConfigDict({'transfer': {'epochs': 400, 'batch_size': 128}})
    assert transfer.Stage('transfer/linear/all', 'linear', images=5000, classes=10).plan(default) == (39 * 400, 128)


@pytest.fixture(scope='module')
def run(tmp_path_factory, photograph_folder, stage_states):
    """(config, work directory, results) of both protocols on all images and two folds, four devices.

    The artifacts stage is taken as done: its state at step 0 is saved as its last.
    """
    config, workdir = tiny(), tmp_path_factory.mktemp('transfer')
    config.stages = ('transfer',)
    config.data.name = str(photograph_folder)
    config.update(eval_every=100, checkpoint_every=2)
    lines = (range(0, 48, 4), range(1, 48, 4))
    (workdir / 'fold_indices.txt').write_text(''.join(' '.join(map(str, line)) + '\n' for line in lines))
    config.transfer.update(
        epochs=2, batch_size=16, hidden=8, num_folds=2, fold_size=12, folds=str(workdir / 'fold_indices.txt')
    )
    devices, steps = Devices('jit'), config.artifacts.steps
    state = jax.device_put(stage_states[artifacts].replace(step=np.int32(steps)), devices.replicated)
    with train.Checkpoints(workdir / 'run' / 'artifacts' / 'checkpoints', config, devices.replicated) as checkpoints:
        checkpoints.save(steps, state)
    return config, workdir / 'run', pipeline.run(configuration.check(config), workdir / 'run')


def test_every_test_image_is_counted_in_every_part(run):
    _, workdir, results = run
    assert results == json.loads((workdir / 'results.json').read_text())
    assert list(results['transfer']) == ['linear', 'finetune']
    for parts in results['transfer'].values():
        assert list(parts) == ['all', 'fold_1', 'fold_2', 'folds']
        for part, images in (('all', 48), ('fold_1', 12), ('fold_2', 12)):
            row = parts[part]
            assert (row['count'], row['train']) == (20, images)
            assert row['accuracy'] == 100 * row['correct'] / 20
        one, two = (parts[part]['accuracy'] for part in ('fold_1', 'fold_2'))
        assert parts['folds']['mean'] == pytest.approx((one + two) / 2)
        assert parts['folds']['deviation'] == pytest.approx(abs(one - two) / np.sqrt(2))
        assert (parts['folds']['folds'], parts['folds']['ddof']) == (2, 1)
    table = (workdir / 'results.txt').read_text()
    assert f'{results["transfer"]["linear"]["folds"]["mean"]:.2f} +- ' in table
    assert '2 x 12' in table


def test_the_last_state_is_what_is_tested(run):
    config, workdir, results = run
    stage = transfer.Stage('transfer/linear/all', 'linear', images=48, classes=2)
    devices, datasets = Devices('jit'), pipeline.Datasets(config)
    state = train.finished(stage, config, workdir, devices)
    images = augment.test_view(config, datasets['test'].images)
    logits = jax.jit(transfer.make_classifier('linear', 2, config).apply)(state.variables, images)
    correct = int((logits.argmax(1) == datasets['test'].labels).sum())
    assert correct == results['transfer']['linear']['all']['correct']


def test_a_fold_leaves_its_metrics_and_no_checkpoints(run):
    _, workdir, _ = run
    for protocol in ('linear', 'finetune'):
        rows = report.read(workdir / 'transfer' / protocol / 'fold_1' / 'metrics.jsonl')
        assert [row['step'] for row in rows if 'train/loss/class' in row] == [1, 2]
        assert {'train/accuracy', 'train/grad_norm/head', 'test/accuracy'} <= {name for row in rows for name in row}
        assert not (workdir / 'transfer' / protocol / 'fold_1' / 'checkpoints').exists()
        assert (workdir / 'transfer' / protocol / 'all' / 'checkpoints' / '6').exists()
        assert (workdir / 'figures' / f'transfer_{protocol}_all_curves.png').exists()


def test_the_classifiers_trunk_is_exported(run, stage_states):
    config, workdir, _ = run
    learned = stage_states[artifacts].params['discriminator']['trunk']
    for protocol in ('linear', 'finetune'):
        _, variables, size = export.load_variables(workdir / 'transfer' / protocol / 'export')
        assert size == config.model.image_size
        assert bool(changed(learned, variables['params'])) == (protocol == 'finetune')


def test_the_same_command_again_does_nothing_but_say_so(run, capsys, monkeypatch):
    config, workdir, results = run
    monkeypatch.setattr(data, 'load', None)  # needs no data
    left = workdir / 'transfer' / 'linear' / 'fold_1' / 'checkpoints' / '2'  # as by a run killed before it tidied up
    left.mkdir(parents=True)
    assert pipeline.run(config, workdir) == results
    assert str(workdir / 'results.txt') in capsys.readouterr().out
    assert not left.exists()


def test_a_lost_result_is_tested_again_and_only_that(run, monkeypatch):
    config, workdir, results = run
    without = json.loads((workdir / 'results.json').read_text())
    del without['transfer']['linear']['all']
    report.write_json(workdir / 'results.json', without)
    monkeypatch.setattr(train, '_loop', None)  # its checkpoint is there
    assert pipeline.run(config, workdir)['transfer'] == results['transfer']


def test_training_goes_on_where_it_stopped(run, tmp_path, monkeypatch):
    config, workdir, results = run
    config = config.copy_and_resolve_references()
    config.transfer.protocols = ('linear',)
    (tmp_path / 'artifacts').symlink_to(workdir / 'artifacts')
    original = data.InMemory.batch

    def batch(self, step, size):
        if step == 5:  # of the training on all images; that on a fold has two steps
            raise KeyboardInterrupt
        return original(self, step, size)

    monkeypatch.setattr(data.InMemory, 'batch', batch)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, tmp_path)
    monkeypatch.undo()
    assert pipeline.run(config, tmp_path)['transfer']['linear'] == results['transfer']['linear']


def test_held_out_folds_train_on_the_others_and_test_on_the_fold(run):
    config, _, _ = run
    datasets, fold = pipeline.Datasets(config), np.arange(0, 48, 4)
    split = transfer._split('held_out_fold_2', datasets, [fold + 1, fold])
    np.testing.assert_array_equal(split['test'].images, datasets['probe_train'].images[fold])
    assert split['train'].num_examples == 36
    both = np.concatenate([split['train'].images, split['test'].images])
    assert len(np.unique(both, axis=0)) == len(np.unique(datasets['probe_train'].images, axis=0))
    official = transfer._split('fold_2', datasets, [fold + 1, fold])
    np.testing.assert_array_equal(official['train'].labels, datasets['probe_train'].labels[fold])
    assert official['test'] is datasets['test']


def test_images_without_labels_are_refused(run):
    config, _, _ = run
    dataset = data.InMemory(np.zeros((4, 16, 16, 3), np.uint8), np.full(4, -1, np.int32), (), 0)
    with pytest.raises(data.DataError, match=r"'train' of .* has no labels, which transfer learns from"):
        transfer._classes(config, dataset)
