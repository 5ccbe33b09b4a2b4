import itertools

import numpy as np
import pytest

from artifacts_jax.data import ordered, reading
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import devkit
from artifacts_jax.transfer.voc.classification import stage
from tests.data.splits_test import same
from tests.transfer.voc.trees import add, an_object, annotation, listed

SIZES = [(9 + n, 20 - n) for n in range(11)]  # sizes of all images, in the order of the list
SIDE = 16  # some images are larger and are resized


@pytest.fixture
def year(tmp_path):
    for n, size in enumerate(SIZES):
        add(
            tmp_path,
            f'{n:02d}',
            annotation(an_object('cat' if n % 2 else 'dog', difficult=int(n % 3 == 0)), size=size),
            size=size,
        )
    listed(tmp_path, 'train', *(f'{n:02d}' for n in range(len(SIZES))))
    return tmp_path


@pytest.fixture(params=['memory', 'stream'])
def load(request, year, config, monkeypatch):
    original = reading.make_options

    def load(seed=0, **hosts):
        records = devkit.open_voc(str(year), ['train'])['train']
        hosted = {'seed': seed, **hosts}
        monkeypatch.setattr(reading, 'make_options', lambda *given, **live: {**original(*given, **live), **hosted})
        return stage.open_images(configure(config, loading=request.param), records, 'train', side=SIDE)

    return load


def configure(config, **options):
    config.data.update(options)
    return config


def take(found, count):
    return list(itertools.islice(found, count))


def prints(found):
    """Returns a hash of each image; all images are different."""
    return [hash(image.tobytes()) for batch in found for image in batch['image']]


def test_evaluation_has_every_image_in_order(load, year):
    found = list(load().eval_batches(4))
    assert [batch['image'].shape for batch in found] == 3 * [(4, SIDE, SIDE, 3)]
    assert {name: x.dtype.name for name, x in found[0].items()} == {
        'image': 'uint8', 'size': 'int32', 'labels': 'int8', 'index': 'int32', 'valid': 'bool'
    }  # fmt: skip
    whole = {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}
    np.testing.assert_array_equal(whole['valid'], np.arange(12) < 11)
    np.testing.assert_array_equal(whole['index'][:11], np.arange(11))
    record = devkit.open_voc(str(year), ['train'])['train'][7]
    np.testing.assert_array_equal(whole['size'][7], record.size)
    np.testing.assert_array_equal(whole['labels'][7], record.labels)
    np.testing.assert_array_equal(whole['image'][7, : record.size[0], : record.size[1]], record.read_image())
    assert not whole['image'][7, record.size[0] :].any()
    assert not whole['image'][7, :, record.size[1] :].any()
    np.testing.assert_array_equal(whole['size'][0], [7, 16])  # of 9 x 20


def test_the_order_is_shuffled_once_and_repeated_every_epoch(load):
    found = take(load().train_batches(4), 11)  # four times eleven images
    order, listed = prints(found), prints(load().eval_batches(11))
    assert order == 4 * order[:11]
    assert sorted(order[:11]) == sorted(listed)
    assert order[:11] != listed
    assert prints(take(load(seed=1).train_batches(4), 11)) != order
    np.testing.assert_array_equal(found[5]['index'], np.arange(4))
    assert same(take(load().train_batches(4, start_step=6), 5), found[6:])


def test_hosts_share_every_batch(load):
    for whole, *parts in (
        (take(load().train_batches(4), 4), *(take(load(process_index=n, process_count=2).train_batches(4), 4)
                                             for n in (0, 1))),
        (list(load().eval_batches(4)), *(list(load(process_index=n, process_count=2).eval_batches(4)) for n in (0, 1))),
    ):  # fmt: skip
        joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*parts)]
        assert same(joined, whole)


def test_memory_and_stream_are_the_same(year, config):
    records = devkit.open_voc(str(year), ['train'])['train']
    kinds = []
    for limit in (1e-9, 1):
        config.seed = 3
        kinds.append(stage.open_images(configure(config, memory_limit_gb=limit), records, 'train', side=SIDE))
    assert [type(kind) for kind in kinds] == [reading.StreamedDataset, ordered.ArrayDataset]
    assert same(*(take(kind.train_batches(5), 6) for kind in kinds))
    assert same(*(kind.eval_batches(5) for kind in kinds))


def test_damaged_images_are_skipped_and_reported(year, config, capsys):
    records = devkit.open_voc(str(year), ['train'])['train']
    content = records[2].file.read_bytes()
    records[2].file.write_bytes(content[:-40])
    dataset = stage.open_images(configure(config, loading='memory'), records, 'train of VOC', side=SIDE)
    assert dataset.num_examples == 10
    assert 'skipped 1 of 11 images of train of VOC: 02 (' in capsys.readouterr().err
    for record in records:
        record.file.unlink()
    with pytest.raises(DataError, match='train of VOC: no example can be used'):
        stage.open_images(configure(config, loading='memory'), records, 'train of VOC', side=SIDE)
