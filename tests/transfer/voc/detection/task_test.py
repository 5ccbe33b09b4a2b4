"""The whole task, on small synthetic images and on photographs."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import DictKey

import artifacts_jax
from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data import splits
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import devkit
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop
from artifacts_jax.transfer.voc.detection import batches, detector, proposals, stage, task
from tests import stopping
from tests.conftest import tiny
from tests.transfer.voc import photographs, trees

ONE = Devices('jit', jax.devices()[:1])
SIZES = [(20, 24), (24, 20), (20, 24), (20, 24), (20, 24), (20, 24)]
BOXES = [(3, 4, 12, 15), (8, 2, 19, 12)]


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('voc_detection',), 'random'
    config.data.update(name=str(folder), probe_train='trainval', test='test', workers=2)
    config.voc_detection.update(
        steps=6, batch_size=4, scales=(24,), longest=40, hidden=8, regions=8, boxes=16,
        proposals=str(Path(folder).parent / 'boxes.npz'),
    )  # fmt: skip
    config.voc_detection.update(options)
    config.eval_every = 100
    return config


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    """A VOC folder with six images of noise, which have a cat and some a dog, and their proposals."""
    year = tmp_path_factory.mktemp('voc') / 'VOC2007'
    names, random = [f'{n:06}' for n in range(len(SIZES))], np.random.default_rng(0)
    boxes = []
    for n, (name, size) in enumerate(zip(names, SIZES)):
        objects = [trees.an_object(what, box) for what, box in zip(('cat', 'dog'), BOXES[: 1 + n % 2])]
        trees.add(year, name, trees.annotation(*objects, size=size), size=size)
        near = np.repeat(np.array(BOXES) - 1, 9, axis=0) + random.integers(-3, 4, (18, 4))
        boxes.append(np.clip(near, 0, 17).astype(np.float32))
    for split in ('trainval', 'test'):
        trees.listed(year, split, *names)
    proposals.write_file(year.parent / 'boxes.npz', names, boxes)
    return year


def images(config, workdir):
    """Returns {'train': images, 'test': images} of the task."""
    return task.open_data(config, splits.Datasets(config)).images(workdir)


@pytest.fixture(scope='module')
def start():
    """The variables of the artifacts stage at step 0."""
    return loop.make_initial_state(artifacts, tiny(), ONE, None).variables


@pytest.fixture
def train(tree, start, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, 'INIT_IMAGES', 8)

    def train(devices=ONE, folder=tmp_path, **options):
        config = small(tree, **options)
        datasets = images(config, folder)
        training = stage.Stage(NAME='voc_detection/test', evaluate_fn=detector.make_detect_fn(config, devices))
        return loop.run(training, config, folder, devices, datasets, jax.device_put(start, devices.replicated))

    return train


@pytest.mark.slow
def test_a_run_reports_every_class_and_writes_the_devkit_files(tree, tmp_path, capsys):
    config = small(tree)
    config.voc_detection.boxes = 7  # test images have more proposals, so there are several chunks
    found = pipeline.run(configuration.check(config), tmp_path)
    row = found['voc_detection']['single_scale_frozen1']
    assert row['count'] == row['train'] == 6
    assert row['ap']['aeroplane'] is None
    assert row['map'] == pytest.approx((row['ap']['cat'] + row['ap']['dog']) / 2)
    assert '52.5' in (tmp_path / 'results.txt').read_text()
    folder = tmp_path / 'voc_detection' / 'single_scale_frozen1' / 'detections'
    assert len(list(folder.iterdir())) == 20
    assert len((folder / 'comp3_det_test_cat.txt').read_text().splitlines()) > 6
    assert (tmp_path / 'figures' / 'detections.png').is_file()
    test = images(config, tmp_path)['test']
    detected = artifacts_jax.load_detector(folder.parent / 'export')(test.records[1].read_image(), test.proposals[1])
    lines = [line.split() for line in (folder / 'comp3_det_test_cat.txt').read_text().splitlines()]
    best = max(float(line[1]) for line in lines if line[0] == test.records[1].name)
    assert best == pytest.approx(detected.scores[detected.labels.index('cat')], abs=5e-4)
    assert 'images are padded to one of 6 sizes' in capsys.readouterr().out


@pytest.mark.nightly
def test_a_resumed_training_equals_a_whole_one_bit_for_bit(train, tmp_path, monkeypatch):
    stopping.equals_when_resumed(
        monkeypatch, lambda folder: train(folder=folder), tmp_path / 'whole', tmp_path / 'parts', of=batches.Images
    )


@pytest.mark.parametrize(('frozen', 'learn'), [(0, 5), (1, 4), (5, 0)])
def test_frozen_layers_do_not_change(frozen, learn, tree, start):
    config = small(tree, frozen=frozen)
    paths = [('trunk', f'conv{n}') for n in range(1, 6)] + [('head', name) for name in ('fc6', 'cls_score')]
    learning = [stage.Stage(NAME='a').is_trained(tuple(map(DictKey, path)), config) for path in paths]
    assert learning == [False] * frozen + [True] * (learn + 2)


def test_a_step_changes_only_trained_layers(tree, start):
    config = small(tree, frozen=2)
    training, key = stage.Stage(NAME='voc_detection/test'), jax.random.key(0)
    before = jax.jit(partial(training.init_state, config=config))(key, start)
    batch = next(images(config, tree)['train'].train_batches(4))
    step = jax.jit(lambda state, batch: training.train_step(state, batch, key, config=config))
    after, values = step(before, batch)
    changed = jax.tree.map(lambda a, b: bool(np.not_equal(a, b).any()), before.params, after.params)
    assert not any(jax.tree.leaves([changed['trunk'][name] for name in ('conv1', 'conv2')]))
    assert all(any(jax.tree.leaves(changed['trunk'][name])) for name in ('conv3', 'conv4', 'conv5'))
    assert all(any(jax.tree.leaves(layer)) for layer in changed['head'].values())
    assert 0 < values['regions/foreground'] <= 4 * 2
    assert values['loss/class'] == pytest.approx(np.log(21), rel=0.2)  # of an untrained network
    # Images that cannot be decoded, or without RoIs, add nothing; the losses stay finite.
    empty = {
        **batch,
        'valid_proposals': 0 * batch['valid_proposals'] > 0,
        'valid_objects': 0 * batch['valid_objects'] > 0,
    }
    _, values = step(before, {**empty, 'size': 0 * batch['size']})
    assert values['loss/class'] == values['loss/boxes'] == values['grad_norm/all'] == 0


@pytest.mark.slow
def test_box_targets_are_normalised_and_new_layers_initialised_from_data(tree, start, monkeypatch):
    monkeypatch.setattr(stage, 'INIT_IMAGES', 8)
    config = small(tree)
    training, datasets = stage.Stage(NAME='voc_detection/test'), images(config, tree)
    before = training.init_state(jax.random.key(0), start, config=config)
    after = training.initialise_from_data(before, config=config, devices=ONE, datasets=datasets)
    statistics = after.frozen['params']['targets']
    assert statistics['deviations'][7].min() > 0.01
    np.testing.assert_array_equal(statistics['deviations'][0], 1)  # a class without objects
    np.testing.assert_allclose(statistics['means'][7, 0], 0, atol=1e-6)  # mirror images make the mean of x zero
    pooled = stage._pool_first_rois(config, ONE, {**before.params, 'targets': statistics}, datasets['train'])
    layer = after.params['head']['fc6']
    outputs = np.asarray(pooled @ layer['kernel'] + layer['bias'][None])
    np.testing.assert_allclose(outputs.mean(0), 0.1, atol=1e-4)
    np.testing.assert_allclose(outputs.std(0), 1, rtol=1e-3)
    assert not jnp.array_equal(before.params['head']['fc7']['kernel'], after.params['head']['fc7']['kernel'])


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'proposals': '/nowhere/{split}.mat'}, DataError, 'there is no file /nowhere/trainval.mat'),
        ({'proposals': 'edge_boxes'}, DataError, 'expected selective_search, or a .mat'),
        ({'longest': 20}, configuration.ConfigError, 'longest=20: expected lengths of the shorter side'),
        (
            {'test_scales': (24, 48)},
            configuration.ConfigError,
            r'test_scales=\(24, 48\) with .* to voc_detection.longest',
        ),
    ],
)
def test_wrong_options_are_errors_before_anything_is_written(options, error, message, tree, tmp_path):
    with pytest.raises(error, match=message):
        pipeline.run(configuration.check(small(tree, **options)), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_damaged_images_are_listed_in_skipped_tsv_and_not_counted(tree, tmp_path):
    config = small(trees.damaged(tree, tmp_path / 'voc', '000004'), proposals=str(tree.parent / 'boxes.npz'))
    opened = images(config, tmp_path)
    for each in opened.values():
        each.skipped.write_to(tmp_path / 'skipped.tsv')
    assert sum(batch['valid'].sum() for batch in opened['test'].eval_batches(4)) == opened['test'].num_used == 5
    ((place, name, _),) = [line.split('\t') for line in (tmp_path / 'skipped.tsv').read_text().splitlines()]
    assert (place, name) == (f'test of {config.data.name}', '000004')
    assert opened['train'].num_used == 6  # of which none was read


def test_proposals_of_other_images_are_an_error(tree, tmp_path):
    proposals.write_file(tmp_path / 'other.npz', ['000100'], [np.ones((1, 4), np.float32)])
    with pytest.raises(DataError, match='no boxes for 6 of the 6 images'):
        pipeline.run(configuration.check(small(tree, proposals=str(tmp_path / 'other.npz'))), tmp_path / 'run')


def proposals_near(records):
    """Returns for each image boxes near its objects, and 200 random boxes."""
    random, found = np.random.default_rng(0), []
    for record in records:
        boxes, last = record.objects.boxes, np.tile(record.size[::-1], 2) - 1
        sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
        near = np.concatenate([boxes + random.normal(0, spread, boxes.shape) * sides for spread in 4 * [0.08, 0.2]])
        corners = random.uniform(0, last, (200, 4))
        anywhere = np.concatenate([np.minimum(*np.split(corners, 2, 1)), np.maximum(*np.split(corners, 2, 1))], axis=1)
        found.append(np.clip(np.concatenate([near, anywhere]), 0, last))
    return found


@pytest.mark.slow
def test_the_objects_of_photographs_are_overfitted(tmp_path):
    year = photographs.devkit(tmp_path, side=96)
    records = devkit.open_voc(str(year), ['trainval'])['trainval']
    proposals.write_file(tmp_path / 'boxes.npz', [record.name for record in records], proposals_near(records))
    config = small(year, steps=120, learning_rate=0.01, frozen=0, scales=(96,), longest=200)
    config.voc_detection.update(hidden=64, regions=32, boxes=300, dropout=0.0)
    config.model.update(
        widths=(16,) * 5, kernels=(5, 3, 3, 3, 3), conv1_stride=2, image_size=32, encoder_widths=(4,) * 4
    )
    config.update(log_every=50, eval_every=1000, figure_every=1000, checkpoint_every=1000)
    config.data.update(test='trainval')
    found = pipeline.run(configuration.check(config), tmp_path / 'run')['voc_detection']['single_scale_frozen0']
    assert {name for name, value in found['ap'].items() if value is not None} == set(photographs.CLASSES)
    assert found['map'] > 95
