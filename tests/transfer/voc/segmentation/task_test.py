"""The task as a user runs it: on small made-up images, and on real photographs where there are some."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from scipy import ndimage

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data.errors import DataError
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import fcn
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import keys, loop
from artifacts_jax.transfer import confusion
from artifacts_jax.transfer.voc import devkit
from artifacts_jax.transfer.voc.segmentation import batches, canvases, network, segmenter, stage, task
from tests import stopping
from tests.conftest import tiny
from tests.transfer.voc import trees as of_voc
from tests.transfer.voc.segmentation import trees

PHOTOGRAPHS = Path(__file__).parents[5] / 'shared' / 'voc_tiny' / 'VOCdevkit'
ONE = Devices('jit', jax.devices()[:1])


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('voc_segmentation',), 'random'
    config.data.update(name=str(folder), probe_train='train', test='val', workers=2)
    config.voc_segmentation.update(steps=6, batch_size=4, hidden=8)
    config.voc_segmentation.update(options)
    config.eval_every = 100
    return config


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    year = tmp_path_factory.mktemp('voc') / 'VOC2012'
    trees.voc(year, train=(0, 1, 2, 3), val=(4, 5), trainval=range(6))
    trees.sbd(year.parent, 3, 4)
    return year


@pytest.fixture(scope='module')
def start():
    """The variables of an artifacts stage that has learned nothing."""
    return loop.initial(artifacts, tiny(), ONE, None).variables


@pytest.fixture(autouse=True)
def little(monkeypatch):
    monkeypatch.setattr(stage, 'IMAGES', 4)
    monkeypatch.setattr(canvases, 'STEP', 24)


@pytest.fixture
def train(tree, start, tmp_path):
    def train(devices=ONE, folder=tmp_path, accumulate=1, **options):
        config = small(tree, **options)
        config.accumulate = accumulate
        images, tests = task._images(config)
        training = stage.Stage('voc_segmentation/test', segmenter.make(config, devices))
        opened = {'train': images, 'test': tests['val']}
        return loop.run(training, config, folder, devices, opened, jax.device_put(start, devices.replicated))

    return train


def test_a_run_says_every_class_draws_and_is_not_run_again(tree, tmp_path, capsys, read_png):
    config = small(of_voc.damaged(tree, tmp_path / 'voc', trees.name(4)))
    config.data.update(probe_train='trainval', test='trainval')
    found = pipeline.run(configuration.check(config), tmp_path)
    row = found['voc_segmentation']['fcn']
    measured = row['tests']['trainval']
    assert (row['train'], measured['count'], row['steps']) == (5, 5, 6)
    named = {tuple(line.split('\t')[:2]) for line in (tmp_path / 'left_out.tsv').read_text().splitlines()}
    places = {f'{name} of {config.data.name}' for name in ('trainval', 'the images to learn from')}
    assert named == {(place, trees.name(4)) for place in places}
    assert measured['iou']['aeroplane'] is None or measured['iou']['aeroplane'] == 0
    known = [value for value in measured['iou'].values() if value is not None]
    assert measured['miou'] == pytest.approx(np.mean(known))
    text = (tmp_path / 'results.txt').read_text()
    assert '48.0' in text
    assert 'tvmonitor' in text
    assert read_png(tmp_path / 'figures' / 'segmentation.png').shape[1] > 1000
    assert f'{measured["miou"]:.1f} % on trainval' in capsys.readouterr().out
    assert pipeline.run(config, tmp_path) == found
    assert 'trained parameters' not in capsys.readouterr().out


@pytest.mark.slow
def test_a_resumed_training_equals_a_whole_one_bit_for_bit(train, tmp_path, monkeypatch):
    stopping.equals_when_resumed(
        monkeypatch, lambda folder: train(folder=folder), tmp_path / 'whole', tmp_path / 'parts', of=batches.Images
    )


@pytest.mark.slow
def test_devices_and_parts_do_not_matter(train, tmp_path):
    whole = train(folder=tmp_path / 'one')
    for name, options in {'jit': (Devices('jit'),), 'pmap': (Devices('pmap'),), 'parts': (ONE, 4)}.items():
        devices, accumulate = (*options, 1)[:2]
        state = train(devices, tmp_path / name, accumulate)
        for a, b in zip(stopping.leaves(whole), stopping.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_step_is_the_mean_of_the_gradients_of_images(tree, start):
    config = small(tree, dropout=0.0, learning_rate=0.01)
    training, key = stage.Stage('voc_segmentation/test'), keys.stage_key(0, 'test')
    before = training.init_state(key, start, config=config)
    score = {'kernel': jax.random.normal(key, (1, 1, 8, 21)), 'bias': jnp.zeros(21)}
    before = before.replace(params={**before.params, 'head': {**before.params['head'], 'score': score}})
    images, _ = task._images(config)
    batch, results = images.batch(0, 2), []
    for config.accumulate in (1, 2):
        results.append(jax.jit(partial(training.train_step, config=config))(before, batch, key))
    (after, values), (in_parts, values_in_parts) = results
    assert values['loss/class'] == pytest.approx(float(values_in_parts['loss/class']), rel=1e-5)
    for a, b in zip(stopping.leaves(after.params), stopping.leaves(in_parts.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before.params, after.params)
    assert all(jax.tree.leaves(changed))


def test_images_are_drawn_with_replacement_and_as_they_are(tree):
    images, tests = task._images(small(tree))
    rows = [row for step in range(100) for row in images.rows(step, 4)]
    assert set(rows) == {0, 1, 2, 3}
    assert rows != [row for step in range(100) for row in sorted(set(images.rows(step, 4)))]
    batch = images.batch(3, 4)
    assert batch['image'].shape[1:3] == canvases.smallest([images.records[n].size for n in images.rows(3, 4)])
    for n, row in enumerate(images.rows(3, 4)):
        record, (height, width) = images.records[row], batch['size'][n]
        np.testing.assert_array_equal(batch['image'][n, :height, :width], record.image())
        np.testing.assert_array_equal(batch['labels'][n, :height, :width], record.mask())
        assert (batch['labels'][n, height:] == 255).all()
        assert (batch['labels'][n, :, width:] == 255).all()
    halves = [
        batches.Images(images.records, seed=images.seed, process_index=n, process_count=2).batch(3, 4) for n in (0, 1)
    ]
    for name, x in batch.items():
        np.testing.assert_array_equal(x, np.concatenate([half[name] for half in halves]))
    (tested,) = tests['val'].eval_batches(4)
    assert tested['mask'].tolist() == [True, True, False, False]


def test_an_image_that_cannot_be_decoded_adds_nothing_and_does_not_count(tree, tmp_path):
    images, _ = task._images(small(tree))
    damaged = tmp_path / 'damaged.png'
    damaged.write_bytes(images.records[0].file.read_bytes()[:100])
    broken = [dataclasses.replace(images.records[0], file=damaged), *images.records[1:]]
    images = batches.Images(broken, seed=0)
    step = next(n for n in range(20) if 0 in images.rows(n, 4))
    place = images.rows(step, 4).index(0)
    assert (images.batch(step, 4)['labels'][place] == 255).all()
    (tested,) = images.eval_batches(4)
    assert tested['mask'].tolist() == [False, True, True, True]
    assert len(images.left_out) == 1


def test_the_classes_of_pixels_are_those_of_images_alone(tree, start):
    config = small(tree)
    training = stage.Stage('voc_segmentation/test')
    state = training.init_state(jax.random.key(0), start, config=config)
    score = {'kernel': jax.random.normal(jax.random.key(1), (1, 1, 8, 21)), 'bias': jnp.zeros(21)}
    variables = {'params': {**state.params, 'head': {**state.params['head'], 'score': score}}, 'batch_stats': {}}
    images, _ = task._images(config)
    found = dict(segmenter.make(config, Devices('jit'))(variables, images))
    assert set(found) == {0, 1, 2, 3}
    model, counts = network.make(config), 0
    for row, labels in found.items():
        record = images.records[row]
        scores = model.apply({'params': variables['params']}, network.prepared(record.image()[None]))
        np.testing.assert_array_equal(labels, np.asarray(scores)[0].argmax(-1))
        counts += confusion.matrix(record.mask(), labels, 21)
    np.testing.assert_array_equal(segmenter.counted(images.records, found.items())[0], counts)


def test_new_layers_begin_by_what_they_see(tree, start):
    config = small(tree)
    training, (images, _) = stage.Stage('voc_segmentation/test'), task._images(config)
    before = training.init_state(jax.random.key(0), start, config=config)
    after = training.prepare(before, config=config, devices=ONE, datasets={'train': images})
    seen = stage._first_windows(config, ONE, before.variables, images)
    assert seen.shape == (4 * stage.PLACES, fcn.WINDOW**2 * 8)
    layer = after.params['head']['fc6']
    outputs = np.asarray(seen @ layer['kernel'].reshape(-1, 8) + layer['bias'][None])
    np.testing.assert_allclose(outputs.mean(0), 0.1, atol=1e-4)
    np.testing.assert_allclose(outputs.std(0), 1, rtol=1e-3)
    # And they see what a convolution does.
    image = images.records[0].image()[None]
    pooled = network.make(config).apply({'params': before.params}, network.prepared(image), method='pooled')
    slid = jax.lax.conv(pooled.transpose(0, 3, 1, 2), layer['kernel'].transpose(3, 2, 0, 1), (1, 1), 'VALID') + layer[
        'bias'
    ].reshape(1, -1, 1, 1)
    assert abs(float(slid.mean())) < 1
    assert not after.params['head']['score']['kernel'].any()
    config.voc_segmentation.rescale = 'none'
    assert training.prepare(before, config=config, devices=ONE, datasets={}) is before


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        (
            {'batch_size': 6},
            configuration.ConfigError,
            'batch_size=6 does not divide by the 4 devices',
        ),
        ({'voc': False}, configuration.ConfigError, 'there is nothing to learn from'),
        ({'sbd': '/nowhere'}, DataError, '/nowhere holds no SBD'),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(options, error, message, tree, tmp_path):
    with pytest.raises(error, match=message):
        pipeline.run(configuration.check(small(tree, **options)), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_what_is_tested_on_is_not_learned_from(tree, tmp_path):
    config = small(tree, sbd=str(tree.parent))
    with pytest.raises(DataError, match='1 of the 2 images of val are among the 5 to learn from, such as 2008_000004'):
        pipeline.run(configuration.check(config), tmp_path / 'run')


def parts_of_photographs(folder):
    """Makes a tree of the middle of the photographs, of several sizes, with void around objects, as VOC has it."""
    year = folder / 'VOC2012'
    records = devkit.open_voc(str(PHOTOGRAPHS), ['trainval'], lists='Segmentation')['trainval']
    for n, record in enumerate(records):
        height, width = 128 - 16 * (n % 2), 112 + 16 * (n % 2)
        top, left = (record.size[0] - height) // 2, (record.size[1] - width) // 2
        place = np.s_[top : top + height, left : left + width]
        mask = record.mask()[place]
        edges = ndimage.maximum_filter(mask, 5) != ndimage.minimum_filter(mask, 5)
        of_voc.add(year, record.name, size=(height, width), mask=np.where(edges, np.uint8(255), mask))
        PIL.Image.fromarray(record.image()[place]).save(year / 'JPEGImages' / f'{record.name}.png')
    of_voc.listed(year, 'trainval', *(record.name for record in records), lists='Segmentation')
    return year


@pytest.mark.slow
@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason='the photographs of ../shared/voc_tiny are not here')
def test_parts_of_photographs_are_learned_by_heart(tmp_path, monkeypatch):
    monkeypatch.setattr(canvases, 'STEP', 128)
    config = small(parts_of_photographs(tmp_path), steps=300, learning_rate=0.01, hidden=128, dropout=0.0)
    config.model.update(widths=(16,) * 5)
    config.update(log_every=20, eval_every=100, figure_every=1000, checkpoint_every=1000)
    config.data.update(probe_train='trainval', test='trainval')
    found = pipeline.run(configuration.check(config), tmp_path / 'run')['voc_segmentation']['fcn']
    measured = found['tests']['trainval']
    assert measured['count'] == 4
    assert measured['miou'] > 95
