import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from artifacts_jax.data import decoding
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import records


@pytest.fixture
def record(tmp_path):
    """Returns a record of 4 x 5 pixels with a palette mask."""
    image, mask = PIL.Image.new('RGB', (5, 4), 'red'), PIL.Image.new('P', (5, 4), 20)
    mask.putpalette(list(range(256)) * 3)
    mask.putpixel((1, 2), 255)
    image.save(tmp_path / 'a.png')
    mask.save(tmp_path / 'mask.png')
    return records.Record('a', tmp_path / 'a.png', (4, 5), mask_file=tmp_path / 'mask.png', classes=21)


def test_pixels_and_mask_are_read_on_demand(record):
    expected = np.full((4, 5), 20)
    expected[2, 1] = 255
    np.testing.assert_array_equal(record.read_mask(), expected)
    np.testing.assert_array_equal(record.read_image(), np.broadcast_to([255, 0, 0], (4, 5, 3)))
    record.file.unlink()
    with pytest.raises(decoding.UnusableError, match='No such file'):
        record.read_image()
    record.mask_file.write_bytes(b'')
    with pytest.raises(DataError, match=r'mask.png: cannot be read \('):
        record.read_mask()


def test_an_image_whose_size_has_changed_is_unusable(record):
    PIL.Image.new('RGB', (4, 5)).save(record.file)
    with pytest.raises(decoding.UnusableError, match=r'its height and width are \(5, 4\), but were \(4, 5\)'):
        record.read_image()


def test_a_grey_mask_is_read(record):
    PIL.Image.new('L', (5, 4), 7).save(record.mask_file)
    records.check_mask(record.mask_file, (4, 5))
    np.testing.assert_array_equal(record.read_mask(), np.full((4, 5), 7))


def test_a_mask_of_few_bits_has_the_values_of_its_file(record):
    def chunk(name, content):
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    rows = bytes([0, 0x01, 0x23, 0xF0]) * 4  # no filter; two pixels a byte
    head = struct.pack('>IIBBBBB', 5, 4, 4, 0, 0, 0, 0)
    parts = (chunk(b'IHDR', head), chunk(b'IDAT', zlib.compress(rows)), chunk(b'IEND', b''))
    record.mask_file.write_bytes(b'\x89PNG\r\n\x1a\n' + b''.join(parts))
    np.testing.assert_array_equal(record.read_mask(), [[0, 1, 2, 3, 15]] * 4)


def test_invalid_values_of_a_mask_are_an_error(record):
    PIL.Image.new('L', (5, 4), 21).save(record.mask_file)
    with pytest.raises(DataError, match=r'mask.png: the mask has the value 21; expected 0 to 20 or 255'):
        record.read_mask()


def test_a_file_that_is_not_a_mask_is_an_error(record):
    with pytest.raises(DataError, match=r'a.png: the Pillow mode is RGB; expected a palette'):
        records.check_mask(record.file, (4, 5))
    with pytest.raises(DataError, match=r'mask.png: the mask has 4 x 5 pixels, but its image 5 x 4'):
        records.check_mask(record.mask_file, (5, 4))
    PIL.Image.new('L', (5, 4), 7).save(record.mask_file, 'JPEG')
    with pytest.raises(DataError, match=r'mask.png: the format JPEG changes values: write the mask again as PNG'):
        records.check_mask(record.mask_file, (4, 5))
    record.mask_file.write_bytes(b'no image')
    with pytest.raises(DataError, match=r'mask.png: cannot be read'):
        records.check_mask(record.mask_file, (4, 5))
