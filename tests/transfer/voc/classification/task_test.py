"""Runs the task as a user does, on small synthetic VOC trees and on photographs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import devkit, records
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop
from artifacts_jax.transfer.voc.classification import stage
from tests.conftest import tiny
from tests.transfer.voc import photographs, trees

ONE = Devices('jit', jax.devices()[:1])


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('voc_classification',), 'random'
    config.data.update(name=str(folder), probe_train='trainval', test='test', loading='memory')
    config.voc_classification.update({'steps': 6, 'batch_size': 4, 'crop_size': 12, 'hidden': 8, 'geometry': 'same'})
    config.voc_classification.update(options)
    config.eval_every = 100
    return config


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """Returns a tree with six noise images, annotated with a cat or a dog, for training and for testing."""
    year = tmp_path_factory.mktemp('voc') / 'VOC2007'
    names = [f'{n:06}' for n in range(6)]
    for n, name in enumerate(names):
        trees.add(
            year, name, trees.annotation(trees.an_object('cat' if n % 2 else 'dog'), size=(20, 24)), size=(20, 24)
        )
    for split in ('trainval', 'test'):
        trees.listed(year, split, *names)
    return year


@pytest.fixture(scope='module')
def start():
    """Returns the variables of an untrained artifacts stage."""
    return loop.make_initial_state(artifacts, small('voc'), ONE, None).variables


@pytest.fixture
def train(tree, start, tmp_path):
    def train(devices=ONE, folder=tmp_path, **options):
        config = small(tree, **options)
        opened = devkit.open_voc(str(tree), ('trainval', 'test'))
        datasets = {
            name: stage.open_images(config, opened[split], split, side=24)
            for name, split in (('train', 'trainval'), ('test', 'test'))
        }
        training = stage.Stage(NAME='voc_classification/test', evaluate_fn=stage.make_scorer(config, devices))
        return loop.run(training, config, folder, devices, datasets, start)

    return train


def changed(before, after):
    return jax.tree.reduce(
        lambda a, b: a or b, jax.tree.map(lambda x, y: bool(np.not_equal(x, y).any()), before, after)
    )


def test_the_loss_is_summed_over_known_classes():
    outputs = jnp.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
    labels = jnp.array([[1, -1, 0], [0, 0, 0]], jnp.int8)
    by_hand = np.log1p(np.exp(-2.0)) + np.log1p(np.exp(-1.0))
    np.testing.assert_allclose(stage.compute_label_loss(outputs, labels), [by_hand, 0], rtol=1e-6)


@pytest.mark.parametrize(('train', 'learn'), [('all', 8), ('fc6', 3), ('fc8', 1)])
def test_layers_from_the_given_one_on_are_trained(train, learn):
    config = small('voc', train=train)
    paths = [('trunk', f'conv{n}') for n in range(1, 6)] + [('head', f'fc{n}') for n in (6, 7, 8)]
    stage_of = stage.Stage(NAME='a')
    learning = [stage_of.is_trained(tuple(map(jax.tree_util.DictKey, path)), config) for path in paths]
    assert learning == [False] * (8 - learn) + [True] * learn


@pytest.mark.nightly
def test_only_trained_layers_change(train, start, tmp_path):
    whole = {kind: tree['trunk'] for kind, tree in artifacts.select_discriminator(start).items()}['params']
    states = {choice: train(train=choice, folder=tmp_path / choice) for choice in ('all', 'fc8')}
    assert changed(whole['conv1'], states['all'].params['trunk']['conv1'])
    assert set(states['fc8'].params) == {'head'}
    assert not changed(whole['conv1'], states['fc8'].frozen['params']['trunk']['conv1'])
    config = small('voc', train='fc8')
    begun = stage.Stage(NAME='voc_classification/test').init_state(jax.random.key(0), start, config=config)
    assert changed(
        begun.params['head']['fc6'], states['fc8'].params['head']['fc6']
    )  # initialised from data, before training


@pytest.mark.slow
def test_a_run_reports_every_class(tree, tmp_path, capsys):
    config = small(trees.damaged(tree, tmp_path, '000004'), train='fc6', rescale='all')
    config.data.loading, workdir = 'stream', tmp_path / 'run'
    found = pipeline.run(configuration.check(config), workdir)
    row = found['voc_classification']['fc6']
    assert row['count'] == row['train'] == 5
    named = [line.split('\t')[:2] for line in (workdir / 'skipped.tsv').read_text().splitlines()]
    assert sorted(named) == [[f'{split} of {config.data.name}', '000004'] for split in ('test', 'trainval')]
    assert f'skipped 1 of 6 images of test of {config.data.name} so far' in capsys.readouterr().err.splitlines()[-1]
    assert row['ap']['aeroplane'] is None
    assert 0 < row['ap']['cat'] <= 100
    assert row['map'] == pytest.approx((row['ap']['cat'] + row['ap']['dog']) / 2)
    text = (workdir / 'results.txt').read_text()
    assert 'spot artifacts (the paper)' in text
    assert '69.8' in text


def broken(year, what):
    """Returns a VOC tree with one fault."""
    trees.add(year, 'a', trees.annotation(trees.an_object('cat')))
    for split in ('trainval', 'test'):
        trees.listed(year, split, 'a')
    if what == 'no lists':
        for path in (year / 'ImageSets' / 'Main').iterdir():
            path.unlink()
    if what == 'no annotation':
        (year / 'Annotations' / 'a.xml').unlink()
    if what == 'other class':
        (year / 'Annotations' / 'a.xml').write_text(trees.annotation(trees.an_object('potted plant')))
    return year


@pytest.mark.parametrize(
    ('what', 'message'),
    [
        ('no lists', 'the image list .*trainval.txt'),
        ('no annotation', '1 of 1 images have no annotation'),
        ('other class', 'pottedplant'),
    ],
)
def test_faults_of_the_tree_are_refused_before_anything_is_written(what, message, tmp_path):
    config = small(broken(tmp_path / 'VOC2007', what))
    with pytest.raises(DataError, match=message):
        pipeline.run(configuration.check(config), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()


@pytest.mark.slow
@pytest.mark.parametrize('shuffled', [False, True])
def test_photographs_are_overfitted_and_shuffled_labels_are_not_predicted(shuffled, tmp_path, monkeypatch):
    year = photographs.devkit(tmp_path, side=96)
    config = small(year, steps=150, crop_size=64, learning_rate=0.01, batch_size=8)
    config.data.update(probe_train='trainval', test='trainval')
    config.model.update(
        widths=(16,) * 5, kernels=(5, 3, 3, 3, 3), conv1_stride=2, image_size=32, encoder_widths=(4,) * 4
    )
    config.voc_classification.update(hidden=64, dropout=0.0)
    config.update(log_every=50, eval_every=1000, checkpoint_every=1000)
    if shuffled:
        opened = devkit.open_voc

        def turned(name, splits, **options):
            found = {}
            for split, images in opened(name, splits, **options).items():
                others = [*images[1:], images[0]]
                found[split] = tuple(
                    records.dataclasses.replace(image, labels=other.labels) for image, other in zip(images, others)
                )
            return found

        config.voc_classification.steps = 1
        monkeypatch.setattr(devkit, 'open_voc', turned)
    found = pipeline.run(configuration.check(config), tmp_path / 'run')['voc_classification']['all']
    assert {name for name, value in found['ap'].items() if value is not None} == set(photographs.CLASSES)
    assert found['map'] < 90 if shuffled else found['map'] > 99
