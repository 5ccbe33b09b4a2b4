import numpy as np
import pytest
import scipy.io

from artifacts_jax.data.errors import DataError
from artifacts_jax.transfer.voc.detection import proposals

NAMES = ['000005', '000007', '000009']
BOXES = [np.array([[0, 0, 9, 4], [3, 2, 5, 2]], np.float32), np.zeros((0, 4), np.float32), np.ones((1, 4), np.float32)]


def cells(values):
    made = np.empty((len(values), 1), object)
    made[:, 0] = values
    return made


def mat(path, **changes):
    """Writes what is published: y1 x1 y2 x2 from 1, in small integers, which must not overflow."""
    boxes = cells([(each[:, [1, 0, 3, 2]] + 1).astype(np.uint8) for each in BOXES])
    held = {'boxes': boxes, 'images': cells(NAMES), **changes}
    scipy.io.savemat(path, {name: value for name, value in held.items() if value is not None})
    return path


def npz(path, **changes):
    held = {'names': np.array(NAMES), 'counts': np.array([2, 0, 1]), 'boxes': np.concatenate(BOXES), **changes}
    np.savez(path, **{name: value for name, value in held.items() if value is not None})
    return path


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('change', [{}, {'images': None}, {'images': cells([f'JPEGImages/{x}.jpg' for x in NAMES])}])
def test_published_mat_files_are_read(change, tmp_path):
    assert_equal(proposals.read_file(mat(tmp_path / 'a.mat', **change), NAMES), BOXES)


def test_a_written_file_reads_back(tmp_path):
    path = tmp_path / 'new' / 'a.npz'
    proposals.write_file(path, NAMES, BOXES)
    assert_equal(proposals.read_file(path, NAMES), BOXES)
    assert [file.name for file in path.parent.iterdir()] == ['a.npz']
    proposals.write_file(path, [], [])
    assert proposals.read_file(path, []) == []


@pytest.mark.parametrize(('make', 'file'), [(mat, 'a.mat'), (npz, 'a.npz')])
def test_files_with_names_may_have_more_images_in_another_order(make, file, tmp_path):
    assert_equal(proposals.read_file(make(tmp_path / file), [NAMES[2], NAMES[0]]), [BOXES[2], BOXES[0]])


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda p: p / 'a.npz', r'proposals: there is no file \S+a.npz;'),
        (lambda p: mat(p / 'a.mat', boxes=cells(BOXES[:2]), images=None),
         'the boxes of 2 images, but the split has 3: it belongs to another split'),
        (lambda p: mat(p / 'a.mat', images=cells(['1', '2', '3'])),
         'no boxes for 3 of the 3 images, such as 000005; it has 3 images, such as 1: it belongs to another split'),
        (lambda p: mat(p / 'a.mat', images=cells(NAMES[:2])), 'has 2 images and the boxes of 3'),
        (lambda p: mat(p / 'a.mat', images=cells([1, 2, 3])), 'images has .*; expected the name of an image'),
        (lambda p: mat(p / 'a.mat', images=cells(['000005', '000005', '000009'])), 'the image 000005 more than once'),
        (lambda p: mat(p / 'a.mat', boxes=None), 'has no boxes; expected boxes, a cell per image'),
        (lambda p: mat(p / 'a.mat', boxes=BOXES[0]), 'has boxes as float32 .*; expected boxes, a cell'),
        (lambda p: mat(p / 'a.mat', boxes=cells([BOXES[0], BOXES[0][:, :3], BOXES[2]])),
         r'the boxes of image 2 are float32 \[2, 3\]; expected \[N, 4\]'),
        (lambda p: npz(p / 'b.npz').rename(p / 'a.mat'), 'a.mat cannot be read as .mat, or is damaged'),
        (lambda p: mat(p / 'b.mat').rename(p / 'a.npz'), 'a.npz cannot be read as an .npz file'),
        (lambda p: npz(p / 'a.npz', counts=None), 'has no array counts; expected the arrays names, counts and boxes'),
        (lambda p: npz(p / 'a.npz', counts=np.array([2, 0, 2])), r'3 counts with a sum of 4 and boxes \[3, 4\] do not'),
        (lambda p: npz(p / 'a.npz', counts=np.array([2, 0, 1.0])), r'counts is float64 \[3\]; expected names as strin'),
        (lambda p: npz(p / 'a.npz', names=np.array([*NAMES[:2], None])), 'an .npz file .* allow_pickle=False'),
        (lambda p: npz(p / 'a.npz', names=np.array(['1', '2', '3'])), 'no boxes for 3 of the 3 images'),
    ],
)  # fmt: skip
def test_an_invalid_file_is_a_one_line_error(make, message, tmp_path):
    path = make(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        proposals.read_file(path, NAMES)
    assert '\n' not in str(error.value)
    assert str(path) in str(error.value)


def test_a_truncated_file_and_a_matlab_7_3_file_are_errors(tmp_path):
    for path in (mat(tmp_path / 'a.mat'), npz(tmp_path / 'a.npz')):
        path.write_bytes(path.read_bytes()[:-60])
        with pytest.raises(DataError, match='cannot be read as'):
            proposals.read_file(path, NAMES)
    (tmp_path / 'b.mat').write_bytes(b'MATLAB 7.3 MAT-file'.ljust(124) + b'\0\2IM' + bytes(512))
    with pytest.raises(DataError, match=r'b\.mat has the format of MATLAB 7.3'):
        proposals.read_file(tmp_path / 'b.mat', NAMES)


def test_wrong_arguments_of_writing_are_errors(tmp_path):
    with pytest.raises(DataError, match=r'proposals are written as \.npz'):
        proposals.write_file(tmp_path / 'a.mat', NAMES, BOXES)
    with pytest.raises(DataError, match='3 names and boxes of 2 images; expected equal numbers'):
        proposals.write_file(tmp_path / 'a.npz', NAMES, BOXES[:2])
