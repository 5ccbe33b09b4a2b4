import itertools

import numpy as np
import pytest

from artifacts_jax.data.voc import devkit
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.transfer.voc.detection import batches
from tests.data.splits_test import same
from tests.transfer.voc.trees import add, an_object, annotation, listed

SIZES = [(12, 16), (16, 12), (12, 20), (14, 16), (30, 24)]


@pytest.fixture
def year(tmp_path):
    for n, size in enumerate(SIZES):
        objects = [an_object('cat', box=(2, 3, 9, 11)), an_object('dog', box=(1, 1, 4, 8), difficult=1)][: 2 - n % 2]
        add(tmp_path, f'{n}', annotation(*objects, size=size), size=size)
    listed(tmp_path, 'train', *(f'{n}' for n in range(len(SIZES))))
    return tmp_path


@pytest.fixture
def records(year):
    return devkit.open_voc(str(year), ['train'])['train']


@pytest.fixture
def load(records):
    boxes = [np.array([[x, 1, x + 3, 7] for x in range(2 * n)], np.float32).reshape(-1, 4) for n in range(len(SIZES))]

    def load(shorter=(24,), longest=40, seed=0, **hosts):
        return batches.Images(
            records=records,
            proposals=boxes,
            shorter_sides=shorter,
            longest=longest,
            max_proposals=5,
            workers=2,
            seed=seed,
            **hosts,
        )

    return load


def take(stream, count):
    return list(itertools.islice(stream, count))


def test_an_epoch_has_every_image_as_it_is_and_mirrored(load, records):
    found = take(load().train_batches(2), 10)  # two epochs
    epochs = []
    for epoch in (found[:5], found[5:]):
        seen = []
        for batch in epoch:
            for image, size, mirrored, width in zip(*(batch[x] for x in ('image', 'size', 'mirrored', 'width'))):
                seen.append((bool(mirrored), image[: size[0], : size[1]].tobytes()))
                assert not image[size[0] :].any()
                assert not image[:, size[1] :].any()
                assert width in [record.size[1] for record in records]
        assert len(set(seen)) == 10
        assert sum(mirrored for mirrored, _ in seen) == 5
        epochs.append(seen)
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]


def test_images_and_boxes_have_the_same_scale(load, records):
    for batch in take(load().train_batches(1), 10):
        row = next(n for n, record in enumerate(records) if batch['size'][0].tolist() in _sizes(record))
        record, scale = records[row], batch['scale'][0]
        assert min(batch['size'][0]) == 24 or max(batch['size'][0]) == 40
        np.testing.assert_allclose(scale * np.array(record.size), batch['size'][0], atol=0.5)
        mean = record.read_image()[:, :: -1 if batch['mirrored'][0] else 1].mean(axis=1)[0]
        near = batch['image'][0][: batch['size'][0][0], : batch['size'][0][1]][0].mean(axis=0)
        np.testing.assert_allclose(near, mean, atol=25)
        count = len(record.objects.labels)
        assert batch['valid_objects'].sum() == count
        np.testing.assert_array_equal(batch['objects'][0, :count], record.objects.boxes - 1)
        assert [NAMES[label] for label in batch['labels'][0, :count]] == ['cat', 'dog'][:count]
        assert batch['valid_proposals'].sum() == min(5, 2 * row)


def _sizes(record):
    scale = min(24 / min(record.size), 40 / max(record.size))
    return [[round(scale * side) for side in record.size]]


def test_too_many_proposals_are_sampled_each_time(load):
    sampled = [
        batch['proposals'][0] for batch in take(load().train_batches(1), 40) if batch['valid_proposals'].sum() == 5
    ]
    assert len({x.tobytes() for x in sampled}) > 3
    assert all(len(np.unique(x, axis=0)) == 5 for x in sampled)


def test_the_scale_is_sampled_for_each_image(load):
    found = take(load(shorter=(24, 48), longest=80).train_batches(2), 40)
    smaller = np.concatenate([batch['size'].min(axis=1) < 40 for batch in found])
    assert 0.3 < smaller.mean() < 0.7
    assert len({batch['image'].shape for batch in found}) <= 9
    assert any(a != b for a, b in smaller.reshape(-1, 2))


def test_a_batch_is_a_function_of_seed_and_step(load):
    found = take(load().train_batches(2), 8)
    assert same(take(load().train_batches(2, start_step=5), 3), found[5:])
    assert not same(take(load(seed=1).train_batches(2), 8), found)


def test_hosts_share_every_batch(load):
    for whole, *parts in (
        [take(load(**host).train_batches(4), 4) for host in _hosts()],
        [list(load(**host).eval_batches(4)) for host in _hosts()],
    ):
        joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*parts)]
        assert same(joined, whole)


def _hosts():
    return [{}, *({'process_index': n, 'process_count': 2} for n in (0, 1))]


def test_test_batches_have_every_image_in_order_at_every_scale(load, records):
    found = list(load(shorter=(24, 48), longest=80).eval_batches(2))
    assert [batch['index'].tolist() for batch in found] == [[0, 1], [2, 3], [4, 5]]
    assert [batch['valid'].tolist() for batch in found] == [[True, True], [True, True], [True, False]]
    for level, shorter in enumerate((24, 48)):
        sizes = np.concatenate([batch[f'size_{level}'] for batch in found])
        np.testing.assert_array_equal(sizes[:5].min(axis=1), shorter)
        scale = np.concatenate([batch[f'scale_{level}'] for batch in found])[:5]
        np.testing.assert_allclose(scale, [shorter / min(record.size) for record in records])
    assert [batch['index'].tolist() for batch in load().eval_batches(2, limit=3)] == [[0, 1], [2, 3]]


def test_an_image_that_cannot_be_decoded_is_blank_and_skipped(load, records):
    records[4].file.write_bytes(records[4].file.read_bytes()[:-40])
    dataset = load()
    blank = [batch for batch in take(dataset.train_batches(1), 10) if not batch['size'].any()]
    assert len(blank) == 2
    for batch in blank:
        assert not batch['image'].any()
        assert not batch['valid_proposals'].any()
        assert not batch['valid_objects'].any()
    assert next(iter(dataset.eval_batches(5)))['valid'].tolist() == [True] * 4 + [False]
    assert len(dataset.skipped) == 1
