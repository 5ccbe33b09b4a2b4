import zipfile

import numpy as np
import pytest

from artifacts_jax.data import npz
from artifacts_jax.data.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
DAMAGED = r'x\.npz cannot be read as an \.npz file \(.+\): write it again'


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'x.npz'


@pytest.fixture(params=[np.savez, np.savez_compressed])
def write(request):
    return request.param


def load(path):
    """Returns all arrays of a file, read in the same way as for a split."""
    with npz.open_npz(path) as archive:
        names = npz.array_names(archive)
        return {name: (npz.map_array if name == 'image' else npz.read_array)(archive, name) for name in names}


def damage(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize('array', [IMAGES, np.asfortranarray(IMAGES), IMAGES[0, 0, 0, 0], IMAGES.astype('>f4')])
def test_arrays_are_mapped_if_they_are_not_compressed(path, write, array):
    write(path, first=np.arange(7), image=array)
    with npz.open_npz(path) as archive:
        assert npz.array_names(archive) == ['first', 'image']
        assert npz.read_header(archive, 'image') == (array.shape, array.dtype)
        result = npz.map_array(archive, 'image')
        np.testing.assert_array_equal(npz.read_array(archive, 'image'), array)
    assert isinstance(result, np.memmap) == (write is np.savez)
    np.testing.assert_array_equal(result, array)


def test_a_mapped_array_is_read_only(path):
    np.savez(path, image=IMAGES)
    with pytest.raises(ValueError, match='read-only'):
        load(path)['image'][0] = 0


def test_a_missing_file_is_an_error(path):
    with pytest.raises(DataError, match=r'the file .*/x\.npz does not exist; expected FOLDER/SPLIT\.npz'):
        load(path)


@pytest.mark.parametrize('keep', [0, 3, 100, 0.5, -1])
def test_files_that_are_cut_short(path, write, keep):
    write(path, image=IMAGES, label=np.arange(48))
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match=DAMAGED):
        load(path)


@pytest.mark.parametrize('content', [b'no zip at all', b'\x93NUMPY\x01\x00'])
def test_files_of_another_kind(path, content):
    path.write_bytes(content * 100)
    with pytest.raises(DataError, match=DAMAGED):
        load(path)


@pytest.mark.parametrize('name', ['image', 'label'])
@pytest.mark.parametrize('offset', [0, 70, 300])  # the member's own header, that of the array, the array
def test_damaged_arrays(path, write, name, offset):
    write(path, image=IMAGES, label=np.arange(48))
    with zipfile.ZipFile(path) as archive:
        damage(path, archive.getinfo(f'{name}.npy').header_offset + min(offset, 150 if name == 'label' else 300))
    if (write, name, offset) == (np.savez, 'image', 300):  # its checksum would have all of it read
        assert (load(path)['image'] != IMAGES).sum() == 1
        return
    with pytest.raises(DataError, match=DAMAGED):
        load(path)


def test_a_shape_that_does_not_match_the_bytes(path):
    header = {'descr': '|u1', 'fortran_order': False, 'shape': (10**9, 16, 16, 3)}
    with zipfile.ZipFile(path, 'w') as archive, archive.open('image.npy', 'w') as file:
        np.lib.format.write_array_header_1_0(file, header)
        file.write(IMAGES.tobytes())
    with pytest.raises(
        DataError, match=r'image has 36,864 bytes, which does not match uint8 \[1000000000, 16, 16, 3\]'
    ):
        load(path)


def test_nothing_is_unpickled(path, write):
    write(path, label=np.array([1, None], object))
    with pytest.raises(DataError, match='Object arrays cannot be loaded'):
        load(path)
