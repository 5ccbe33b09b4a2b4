import numpy as np
import pytest
import scipy.io

from artifacts_jax.data.errors import DataError
from artifacts_jax.transfer.voc.segmentation import lists
from tests.transfer.voc.segmentation import trees


@pytest.mark.parametrize('suffix', ['.mat', '.png'])
def test_masks_are_read_from_mat_and_png(suffix, tmp_path):
    trees.sbd(tmp_path, 3, 1, suffix=suffix)
    for folder in (tmp_path, tmp_path / 'dataset'):
        records = lists.open_sbd(str(folder), 'train')
        assert [record.name for record in records] == ['2008_000003', '2008_000001']
        for record, n in zip(records, (3, 1)):
            pixels, mask = trees.picture(n, record.size)
            np.testing.assert_array_equal(record.read_image(), pixels)
            np.testing.assert_array_equal(record.read_mask(), np.where(mask == 255, 0, mask))


def test_a_list_may_be_a_path(tmp_path):
    trees.sbd(tmp_path, 0, 1, 2)
    (tmp_path / 'train_noval.txt').write_text('2008_000002\n')
    upper = tmp_path / 'dataset' / 'cls' / '2008_000002.MAT'
    upper.with_suffix('.mat').rename(upper)
    (record,) = lists.open_sbd(str(tmp_path), str(tmp_path / 'train_noval.txt'))
    assert record.read_mask().shape == record.size
    with pytest.raises(
        DataError, match=r"^'val': there is no image list .*dataset/val.txt; the folder has these lists: train$"
    ):
        lists.open_sbd(str(tmp_path), 'val')


def test_a_missing_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(DataError, match=r'does not contain SBD: expected benchmark_RELEASE'):
        lists.open_sbd(str(tmp_path), 'train')
    trees.sbd(tmp_path, 0, 1, 2)
    (tmp_path / 'dataset' / 'cls' / '2008_000001.mat').unlink()
    with pytest.raises(DataError, match=r'1 of 3 names have no mask in .*cls, such as 2008_000001'):
        lists.open_sbd(str(tmp_path), 'train')
    (tmp_path / 'dataset' / 'train.txt').write_text('')
    with pytest.raises(DataError, match=r'train.txt: lists no image'):
        lists.open_sbd(str(tmp_path), 'train')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'no matrix', r'000.mat: cannot be read \('),
        (np.zeros((3, 4), np.uint8), r'000.mat: the mask has 3 x 4 pixels, but its image 20 x 24'),
        (np.full((20, 24), 33, np.uint8), r'000.mat: the mask has the value 33; expected 0 to 20 or 255'),
        (np.full((20, 24), 257, np.int16), r'000.mat: cannot be read \(it holds 257; expected whole numbers from 0 to'),
        (np.full((20, 24), np.nan), r'000.mat: cannot be read \(it holds nan; expected whole numbers'),
        (np.full((20, 24), 0.5), r'000.mat: cannot be read \(it holds 0.5; expected whole numbers'),
    ],
)
def test_an_invalid_mask_in_mat_is_an_error(content, message, tmp_path):
    trees.sbd(tmp_path, 0)
    path = tmp_path / 'dataset' / 'cls' / '2008_000000.mat'
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        trees.mask_of_sbd(path, content)
    (record,) = lists.open_sbd(str(tmp_path), 'train')
    with pytest.raises(DataError, match=message):
        record.read_mask()


def test_a_mat_without_a_segmentation_is_an_error(tmp_path):
    trees.sbd(tmp_path, 0)
    for content in ({'GTinst': 1}, {'GTcls': np.zeros((20, 24), np.uint8)}, {'GTcls': {'Boundaries': 1}}):
        scipy.io.savemat(tmp_path / 'dataset' / 'cls' / '2008_000000.mat', content)
        (record,) = lists.open_sbd(str(tmp_path), 'train')
        with pytest.raises(DataError, match=r'cannot be read \(it has no GTcls.Segmentation\)'):
            record.read_mask()
