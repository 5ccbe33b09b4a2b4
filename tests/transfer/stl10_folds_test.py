import numpy as np
import pytest

from artifacts_jax.data.splits import DataError
from artifacts_jax.transfer import stl10


def read(path, text):
    path.write_text(text)
    return stl10.read_folds(path, num_folds=2, fold_size=3, num_examples=10)


def test_each_line_is_a_fold(tmp_path):
    found = read(tmp_path / 'folds.txt', '0 9 3 \n3 2 1\n\n')  # the official file ends its lines with spaces
    np.testing.assert_array_equal(found, [[0, 9, 3], [3, 2, 1]])


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('0 1 2\n', 'folds.txt: has 1 lines, expected 2'),
        ('0 1 2\n3 4\n', 'folds.txt, line 2: has 2 entries, expected 3 indices'),
        ('0 1 2\n3 4 5.0\n', r"line 2: has '5.0', expected integers from 0 to 9"),
        ('0 1 10\n3 4 5\n', r"line 1: has '10', expected integers from 0 to 9"),
        ('0 1 -1\n3 4 5\n', r"line 1: has '-1', expected integers from 0 to 9"),
        ('0 1 2\n3 4 3\n', 'line 2: has 3 twice, expected 3 different indices'),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path / 'folds.txt', text)


def test_a_file_that_is_missing_or_binary_is_reported(tmp_path):
    with pytest.raises(DataError, match=r'missing.txt: cannot be read'):
        stl10.read_folds(tmp_path / 'missing.txt', num_folds=2, fold_size=3, num_examples=10)
    (tmp_path / 'train_X.bin').write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match=r'train_X.bin: cannot be read as a text file'):
        stl10.read_folds(tmp_path / 'train_X.bin', num_folds=2, fold_size=3, num_examples=10)
