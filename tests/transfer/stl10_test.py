import json

import jax
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data import augment, splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import loaders
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop, report
from artifacts_jax.training import results as numbers
from artifacts_jax.transfer import classifier, stl10
from tests.conftest import tiny
from tests.transfer.classifier_test import changed

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def run(tmp_path_factory, photograph_folder, stage_states):
    """Returns (config, work directory, results) of both protocols on all images and two folds, on four devices.

    The artifacts stage counts as complete: its state at step 0 is saved as its last.
    """
    config, workdir = tiny(), tmp_path_factory.mktemp('stl10')
    config.stages = ('stl10',)
    config.data.name = str(photograph_folder)
    config.update(eval_every=100, checkpoint_every=2)
    lines = (range(0, 48, 4), range(1, 48, 4))
    (workdir / 'fold_indices.txt').write_text(''.join(' '.join(map(str, line)) + '\n' for line in lines))
    config.stl10.update(
        epochs=2, batch_size=16, hidden=8, num_folds=2, fold_size=12, folds=str(workdir / 'fold_indices.txt')
    )
    devices, steps = Devices('jit'), config.artifacts.steps
    state = jax.device_put(stage_states[artifacts].replace(step=np.int32(steps)), devices.replicated)
    with loop.Checkpoints(workdir / 'run' / 'artifacts' / 'checkpoints', config, devices.replicated) as checkpoints:
        checkpoints.save(steps, state)
    return config, workdir / 'run', pipeline.run(configuration.check(config), workdir / 'run')


def test_every_test_image_is_counted_in_every_subset(run):
    _, workdir, results = run
    assert results == json.loads((workdir / 'results.json').read_text())
    assert list(results['stl10']) == ['linear', 'finetune']
    for subsets in results['stl10'].values():
        assert list(subsets) == ['all', 'fold_1', 'fold_2', 'folds']
        for subset, images in (('all', 48), ('fold_1', 12), ('fold_2', 12)):
            row = subsets[subset]
            assert (row['count'], row['train']) == (20, images)
            assert row['accuracy'] == 100 * row['correct'] / 20
        one, two = (subsets[subset]['accuracy'] for subset in ('fold_1', 'fold_2'))
        assert subsets['folds']['mean'] == pytest.approx((one + two) / 2)
        assert subsets['folds']['deviation'] == pytest.approx(abs(one - two) / np.sqrt(2))
        assert (subsets['folds']['folds'], subsets['folds']['ddof']) == (2, 1)
    table = (workdir / 'results.txt').read_text()
    assert f'{results["stl10"]["linear"]["folds"]["mean"]:.2f} +- ' in table
    assert '2 x 12' in table


def test_the_last_state_is_tested(run):
    config, workdir, results = run
    stage = classifier.Stage(NAME='stl10/linear/all', protocol='linear', num_images=48, num_classes=2)
    devices, datasets = Devices('jit'), splits.Datasets(config)
    state = loop.load_final_state(stage, config, workdir, devices)
    images = augment.test_view(config, datasets['test'].images)
    logits = jax.jit(architecture.make_classifier('linear', 2, config=config).apply)(state.variables, images)
    correct = int((logits.argmax(1) == datasets['test'].labels).sum())
    assert correct == results['stl10']['linear']['all']['correct']


def test_a_fold_leaves_its_metrics_and_no_checkpoints(run):
    _, workdir, _ = run
    for protocol in ('linear', 'finetune'):
        rows = report.read_metrics(workdir / 'stl10' / protocol / 'fold_1' / 'metrics.jsonl')
        assert [row['step'] for row in rows if 'train/loss/class' in row] == [1, 2]
        assert {'train/accuracy', 'train/grad_norm/head', 'test/accuracy'} <= {name for row in rows for name in row}
        assert not (workdir / 'stl10' / protocol / 'fold_1' / 'checkpoints').exists()
        assert (workdir / 'stl10' / protocol / 'all' / 'checkpoints' / '6').exists()
        assert (workdir / 'figures' / f'stl10_{protocol}_all_curves.png').exists()


def test_the_classifiers_trunk_is_exported(run, stage_states):
    config, workdir, _ = run
    learned = stage_states[artifacts].params['discriminator']['trunk']
    for protocol in ('linear', 'finetune'):
        _, variables, size = loaders.load_variables(workdir / 'stl10' / protocol / 'export')
        assert size == config.model.image_size
        assert bool(changed(learned, variables['params'])) == (protocol == 'finetune')


def test_running_again_changes_nothing_and_prints_the_results(run, capsys, monkeypatch):
    config, workdir, results = run
    monkeypatch.setattr(splits, 'load', None)  # needs no data
    left = workdir / 'stl10' / 'linear' / 'fold_1' / 'checkpoints' / '2'  # as left by a killed run
    left.mkdir(parents=True)
    assert pipeline.run(config, workdir) == results
    assert str(workdir / 'results.txt') in capsys.readouterr().out
    assert not left.exists()


def test_a_lost_result_is_tested_again_and_only_that(run, monkeypatch):
    config, workdir, results = run
    without = json.loads((workdir / 'results.json').read_text())
    del without['stl10']['linear']['all']
    numbers.write(workdir, without)
    monkeypatch.setattr(Devices, 'train_step', None)  # the checkpoint exists, so nothing is trained
    assert pipeline.run(config, workdir)['stl10'] == results['stl10']


@pytest.mark.nightly
def test_training_resumes_where_it_stopped(run, undrawn, tmp_path, monkeypatch):
    config, workdir, results = run
    config = config.copy_and_resolve_references()
    config.stl10.protocols = ('linear',)
    (tmp_path / 'artifacts').symlink_to(workdir / 'artifacts')
    original = splits.InMemory.batch

    def batch(self, step, size):
        if step == 5:  # of the training on all images; training on a fold has two steps
            raise KeyboardInterrupt
        return original(self, step, size)

    monkeypatch.setattr(splits.InMemory, 'batch', batch)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(config, tmp_path)
    monkeypatch.undo()
    assert pipeline.run(config, tmp_path)['stl10']['linear'] == results['stl10']['linear']


def test_held_out_folds_train_on_the_others_and_test_on_the_fold(run):
    config, _, _ = run
    datasets, fold = splits.Datasets(config), np.arange(0, 48, 4)
    data = stl10.Data(datasets['probe_train'], datasets['test'], 2, np.array([fold + 1, fold]), {})
    images = data.select('held_out_fold_2')
    np.testing.assert_array_equal(images['test'].images, datasets['probe_train'].images[fold])
    assert images['train'].num_examples == 36
    both = np.concatenate([images['train'].images, images['test'].images])
    assert len(np.unique(both, axis=0)) == len(np.unique(datasets['probe_train'].images, axis=0))
    official = data.select('fold_2')
    np.testing.assert_array_equal(official['train'].labels, datasets['probe_train'].labels[fold])
    assert official['test'] is datasets['test']


def test_the_table_has_subsets_and_folds():
    row = {'accuracy': 70.0, 'correct': 5600, 'count': 8000, 'train': 5000}
    folds = {'mean': 61.25, 'deviation': 0.5, 'ddof': 1, 'folds': 10, 'train': 1000}
    table = stl10.table({'dataset': 'stl10', 'stl10': {'linear': {'all': row, 'folds': folds}}})
    for text in ('Transfer to stl10', '5,000', '70.00', '5,600 / 8,000', '10 x 1,000', '61.25 +- 0.50'):
        assert text in table
