import numpy as np
import PIL.Image
import pytest

from artifacts_jax.data import photographs, splits
from tests.data.splits_test import options


@pytest.fixture
def built():
    return options(name='photographs', data_dir='/nowhere')  # nothing is written anywhere


def test_photographs_need_no_download(built):
    train, test = (splits.load(built, split, seed=0) for split in ('train', 'test'))
    assert train.images.shape == (2048, 96, 96, 3)
    assert train.num_classes == len(photographs.paths()) == 16
    np.testing.assert_array_equal(np.bincount(train.labels), 128)
    np.testing.assert_array_equal(np.bincount(test.labels), 32)
    assert train.images.std() > 40  # pictures, not blanks
    for labels in (train.labels[:200], test.labels[:100]):
        assert len(set(labels)) == 16  # in no order


def test_hosts_share_a_slice_of_a_split(built):
    part = 'train[100:137]'
    whole = splits.load(built, part, seed=0)
    assert whole.num_examples == 37
    read = {}
    built.loading = 'stream'
    for n in (0, 1):
        for b in splits.load(built, part, seed=0, process_index=n, process_count=2).eval_batches(8):
            read.update({i: x for i, x, keep in zip(b['index'], b['image'], b['valid']) if keep})
    np.testing.assert_array_equal(np.stack([read[i] for i in range(37)]), whole.images)


def test_photographs_train_and_test_share_no_pixel():
    for path in photographs.paths():
        with PIL.Image.open(path) as photograph:
            size = photograph.size
        train, test = (photographs.sample_boxes(size, split, path.stem) for split in ('train', 'test'))
        assert train[:, 3].max() <= test[:, 1].min(), path
        for boxes in (train, test):
            assert (boxes[:, :2] >= 0).all()
            assert (boxes[:, 2:] <= np.array(size[::-1])).all()
            assert (boxes[:, 2:] - boxes[:, :2] >= photographs.SIZE).all()
