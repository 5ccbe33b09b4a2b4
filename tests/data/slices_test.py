import numpy as np
import pytest

from artifacts_jax.data import slices
from artifacts_jax.data.errors import DataError


@pytest.mark.parametrize('part', ['', *'[:90%] [90%:] [10:20] [-10%:] [:-3] [33.3%:66.7%] [5:50%] [1_0:]'.split()])
@pytest.mark.parametrize('examples', [21, 25, 1003])
def test_slices_are_those_of_tfds(part, examples):
    import tensorflow_datasets as tfds

    split, whole = f'train{part}', tfds.core.SplitInfo(name='train', shard_lengths=[examples], num_bytes=0)
    (expected,) = tfds.core.splits.AbstractSplit.from_spec(split).to_absolute({'train': whole})
    first, end = slices.compute_bounds(split, examples)
    assert (first, end) == (expected.from_ or 0, examples if expected.to is None else expected.to)
    assert slices.split_name(split) == 'train'


@pytest.mark.parametrize('split', ['train+test', 'train[', 'train[5]', 'train[:1shard]', 'train[::2]', 'a/b', ''])
def test_invalid_slices_are_an_error(split):
    with pytest.raises(DataError, match='is not a split; expected'):
        slices.split_name(split)


def test_a_fractional_index_is_an_error():
    with pytest.raises(DataError, match='did you mean per cent'):
        slices.split_name('train[:0.9]')


@pytest.mark.parametrize('split', ['train[5:5]', 'train[7:3]', 'train[:21]', 'train[-21:]', 'train[:1%]', 'train[20:]'])
def test_an_empty_or_too_large_slice_is_an_error(split):
    with pytest.raises(DataError, match=r'of the data means the examples .*, but there are 20'):
        slices.compute_bounds(split, 20)


def test_overlap_of_training_and_test_images_is_a_warning(capsys):
    slices.warn_of_overlap(range(5), range(5, 9), train='train', test='test')
    assert not capsys.readouterr().err
    slices.warn_of_overlap(['a', 'b', 'c'], ['c', 'd'], train='trainval', test='val')
    expected = 'warning: 1 of the 2 test images of val are also training images of trainval\n'
    assert capsys.readouterr().err == expected


def test_the_held_out_subset_depends_only_on_the_index():
    held_out = slices.is_held_out(np.arange(20_000), 0.1)
    assert abs(held_out.mean() - 0.1) < 0.01
    np.testing.assert_array_equal(slices.is_held_out(np.arange(5000, 5010), 0.1), held_out[5000:5010])
