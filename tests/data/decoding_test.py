"""Image files of many formats and modes; the expected values are computed by hand."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import skimage.data

from artifacts_jax.data import decoding

RAMP = np.broadcast_to(np.arange(96, dtype=np.uint8)[None], (32, 96))  # grey and wide
CAT = skimage.data.chelsea()  # [300, 451, 3]
UP = np.zeros((32, 48, 3), np.uint8)  # its upper left corner is red, its lower right one blue
UP[:16, :24], UP[16:, 24:] = (200, 0, 0), (0, 0, 200)


def encoded(image, kind, **options):
    """Returns the file content of an image, given as pixels or as a Pillow image."""
    file = io.BytesIO()
    image = image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(np.ascontiguousarray(image))
    image.save(file, kind, **options)
    return file.getvalue()


def png(values, colour, depth, *chunks, size=None):
    """Returns a PNG file of values [H, W] or [H, W, C] of 8 or 16 bits, with a colour type and extra chunks."""

    def chunk(name, content):
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    height, width = size or values.shape[:2]
    rows = values.astype('>u2' if depth == 16 else np.uint8).reshape(len(values), -1)
    pixels = b''.join(b'\0' + row.tobytes() for row in rows)
    head = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, 0)
    middle = b''.join(chunk(name, content) for name, content in chunks)
    return (
        b'\x89PNG\r\n\x1a\n'
        + chunk(b'IHDR', head)
        + middle
        + chunk(b'IDAT', zlib.compress(pixels))
        + chunk(b'IEND', b'')
    )


@pytest.mark.parametrize(
    'kind', ['PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'PPM', 'AVIF', 'HEIF', 'JPEG2000', 'TGA']
)
def test_formats(kind):
    options = {'quality': 95} if kind in ('JPEG', 'WEBP', 'AVIF', 'HEIF') else {}
    result = decoding.decode(encoded(CAT, kind, **options), 96)
    expected = decoding.decode(CAT, 96)
    assert np.abs(result.astype(int) - expected).mean() < (6 if kind == 'GIF' else 3)  # which has 256 colours


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
@pytest.mark.parametrize('grey', [False, True])
@pytest.mark.parametrize('tall', [False, True])
def test_images_become_centre_crops(kind, grey, tall):
    ramp = RAMP.T if tall else RAMP
    image = decoding.decode(encoded(ramp if grey else np.stack([ramp] * 3, axis=-1), kind), 16).astype(int)
    # Half the size, so that a pixel is the mean of two columns; the central 16 of 48 begin at column 32.
    expected = np.broadcast_to(32.5 + 2 * np.arange(16), (16, 16))
    np.testing.assert_allclose(image, np.stack([expected.T if tall else expected] * 3, axis=-1), atol=2)


def test_images_of_the_right_size_are_kept_bit_for_bit():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoding.decode(encoded(image, 'PNG'), 16), image)
    assert decoding.decode(image, 16) is image


@pytest.mark.parametrize('size', [16, 96, 224])
def test_both_decoders_of_jpeg_agree(size):
    for image in (CAT, CAT[..., 0], CAT[:32, :32]):
        plain = encoded(image, 'JPEG')
        exif = PIL.Image.Exif()
        exif[0x0110] = 'a camera'
        assert decoding._decode_plain_jpeg(plain, size) is not None
        assert decoding._decode_plain_jpeg(encoded(image, 'JPEG', exif=exif), size) is None
        result = decoding.decode(encoded(image, 'JPEG', exif=exif), size)
        difference = np.abs(decoding.decode(plain, size).astype(int) - result)
        assert difference.mean() < 3  # simplejpeg halves in finer steps
        assert size == 96 or not difference.any()


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_turned_images_are_upright(kind, orientation):
    stored = {
        1: UP,
        2: UP[:, ::-1],
        3: UP[::-1, ::-1],
        4: UP[::-1],
        5: UP.transpose(1, 0, 2),
        6: np.rot90(UP),
        7: np.rot90(UP, 2).transpose(1, 0, 2),
        8: np.rot90(UP, -1),
    }[orientation]
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    result = decoding.decode(encoded(stored, kind, exif=exif), 8).astype(int)
    expected = np.zeros((8, 8, 3), int)
    expected[:4, :4], expected[4:, 4:] = (200, 0, 0), (0, 0, 200)
    np.testing.assert_allclose(result, expected, atol=60)  # JPEG's colours have half the resolution
    assert result[1, 1, 0] > 150 > result[6, 6, 0]
    whole = decoding.decode_whole(encoded(stored, kind, exif=exif)).astype(int)
    assert whole.shape[:2] == decoding.read_size(encoded(stored, kind, exif=exif)) == (32, 48)
    np.testing.assert_allclose(whole[4:12, 4:20], np.broadcast_to([200, 0, 0], (8, 16, 3)), atol=60)


def test_a_jpeg_is_upright_with_an_orientation_in_exif_or_xmp():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    plain = encoded(np.rot90(UP), 'JPEG')

    def preceded(content, marker, *segments):
        return content[:2] + b''.join(marker + struct.pack('>H', len(x) + 2) + x for x in segments) + content[2:]

    late = preceded(encoded(np.rot90(UP), 'JPEG', exif=exif), b'\xff\xfe', b'-' * 60_000, b'-' * 60_000)
    told = preceded(plain, b'\xff\xe1', b'http://ns.adobe.com/xap/1.0/\0<rdf tiff:Orientation="6"/>')
    for content in (late, told):
        assert decoding.decode_whole(content).shape[:2] == decoding.read_size(content) == (32, 48)
    assert decoding.decode_whole(plain).shape[:2] == decoding.read_size(plain) == (48, 32)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_a_whole_image_keeps_its_size_and_pixels(kind, tmp_path):
    (tmp_path / 'image').write_bytes(encoded(CAT, kind))
    result = decoding.decode_whole(tmp_path / 'image')
    with PIL.Image.open(tmp_path / 'image') as opened:
        np.testing.assert_array_equal(result, opened)
    assert decoding.read_size(tmp_path / 'image') == result.shape[:2] == (300, 451)


@pytest.mark.parametrize('kind', ['JPEG', 'TIFF'])
def test_cmyk(kind):
    cmyk = PIL.Image.fromarray(CAT).convert('CMYK')
    np.testing.assert_allclose(decoding.decode(encoded(cmyk, kind), 96).mean(), decoding.decode(CAT, 96).mean(), atol=6)


@pytest.mark.parametrize(('lightness', 'alpha', 'expected'), [(0, 0, 255), (0, 255, 0), (100, 255, 100), (0, 128, 127)])
@pytest.mark.parametrize('mode', ['RGBA', 'LA', 'PA'])
def test_transparent_images_lie_on_white(mode, lightness, alpha, expected):
    bands = [lightness] * (3 if mode == 'RGBA' else 1) + [alpha]
    image = PIL.Image.merge('RGBA' if mode == 'RGBA' else 'LA', [PIL.Image.new('L', (32, 20), each) for each in bands])
    kinds = ('PNG', 'WEBP', 'TIFF') if mode == 'RGBA' else ('PNG',)
    for kind in kinds:
        options = {'lossless': True, 'exact': True} if kind == 'WEBP' else {}
        np.testing.assert_allclose(decoding.decode(encoded(image, kind, **options), 8), expected, atol=1)


def test_transparent_colours_lie_on_white():
    palette = PIL.Image.new('P', (20, 20), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    np.testing.assert_array_equal(decoding.decode(encoded(palette, 'PNG'), 20)[0, 0], [10, 20, 30])
    np.testing.assert_array_equal(decoding.decode(encoded(palette, 'PNG', transparency=1), 20), 255)
    grey = PIL.Image.new('L', (20, 20), 7)
    np.testing.assert_array_equal(decoding.decode(encoded(grey, 'PNG', transparency=7), 20), 255)


@pytest.mark.parametrize(
    ('most', 'chunks', 'white'),
    [
        (65535, (), 65535),
        (20000, (), 65535),
        (16383, (), 16383),
        (4095, (), 4095),
        (3000, (), 4095),
        (1023, (), 1023),
        (255, (), 255),
        (3000, ((b'sBIT', b'\x0e'),), 16383),  # the file says so
        (900, ((b'sBIT', b'\x0c'),), 4095),
        (5000, ((b'sBIT', b'\x0c'),), 16383),  # and is wrong
    ],
)
def test_grey_images_of_16_bits_are_scaled_by_their_range(most, chunks, white):
    values = np.linspace(0, most, 32).round().astype(int) * np.ones((32, 1), int)
    expected = values * 255 / white
    np.testing.assert_allclose(decoding.decode(png(values, 0, 16, *chunks), 32)[..., 1], expected, atol=0.51)
    if not chunks:
        image = PIL.Image.fromarray(values.astype(np.uint16))
        np.testing.assert_allclose(decoding.decode(encoded(image, 'TIFF'), 32)[..., 1], expected, atol=0.51)


def test_grey_tiff_with_max_sample_value():
    image = PIL.Image.fromarray(np.full((8, 8), 900, np.uint16))
    file = encoded(image, 'TIFF', tiffinfo={281: 4095})
    np.testing.assert_array_equal(decoding.decode(file, 8), round(900 * 255 / 4095))


@pytest.mark.parametrize('channels', [2, 3, 4])
def test_colours_of_16_bits(channels):
    values = np.linspace(0, 65535, 32).round().astype(int)[:, None] * np.ones((32, 32, channels), int)
    if channels in (2, 4):
        values[..., -1] = 65535
    colour = {2: 4, 3: 2, 4: 6}[channels]
    result = decoding.decode(png(values, colour, 16), 32)
    np.testing.assert_allclose(result[..., 0], values[..., 0] / 257, atol=1.01)
    values[..., : channels - (channels in (2, 4))] //= 16
    with pytest.raises(decoding.UnusableError, match='16 bits, but its values use at most 14'):
        decoding.decode(png(values, colour, 16), 32)


def test_single_bits():
    image = PIL.Image.fromarray(RAMP[:, :32] % 2 == 1)
    np.testing.assert_array_equal(decoding.decode(encoded(image, 'PNG'), 32)[0, :4, 0], [0, 255, 0, 255])
    np.testing.assert_allclose(decoding.decode(encoded(image, 'PNG'), 16)[:, 1:-1], 128, atol=1)  # grey


@pytest.mark.parametrize(('most', 'expected'), [(1, 255), (0.5, 127.5), (255, 255), (100, 100)])
def test_floats(most, expected):
    image = PIL.Image.fromarray(np.full((8, 8), most, np.float32))
    np.testing.assert_allclose(decoding.decode(encoded(image, 'TIFF'), 8), expected, atol=0.51)


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'TIFF', 'PNG'])
def test_the_first_frame_or_page_is_read(kind):
    frames = [PIL.Image.fromarray(np.full((16, 16, 3), value, np.uint8)) for value in (40, 200)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(decoding.decode(file.getvalue(), 16), 40, atol=2)


@pytest.mark.parametrize('shape', [(60_000, 1), (1, 5000), (1, 1), (3, 4001)])
@pytest.mark.parametrize('size', [16, 224])
def test_long_images_take_no_more_than_their_square(shape, size):
    image = np.full((*shape, 3), 90, np.uint8)
    np.testing.assert_array_equal(decoding.decode(encoded(image, 'PNG'), size), 90)
    np.testing.assert_array_equal(decoding.decode(image, size), 90)


def test_a_wrong_extension_is_ignored(tmp_path):
    for name, kind in (('a.png', 'JPEG'), ('b.jpg', 'PNG'), ('c.jpeg', 'WEBP')):
        (tmp_path / name).write_bytes(encoded(CAT, kind))
        assert np.abs(decoding.decode(tmp_path / name, 96).astype(int) - decoding.decode(CAT, 96)).mean() < 4


def tiff(bands, extra):
    """Returns a little-endian TIFF file of 2 x 2 pixels with this number of channels."""
    entries = {256: 2, 257: 2, 259: 1, 262: 2 if bands > 2 else 1, 273: 8, 277: bands, 278: 2, 279: 4 * bands}
    values = bytes([100]) * 4 * bands
    place = 8 + len(values)
    bits, many = place + 2 + 12 * 10 + 4, place + 2 + 12 * 10 + 4 + 2 * bands
    tags = {key: (3, 1, struct.pack('<HH', value, 0)) for key, value in entries.items()}
    tags[258] = (3, bands, struct.pack('<I', bits))
    tags[338] = (3, len(extra), struct.pack('<HH', *extra, *[0] * (2 - len(extra))) if len(extra) < 3
                 else struct.pack('<I', many))  # fmt: skip
    directory = struct.pack('<H', 10) + b''.join(
        struct.pack('<HHI', key, kind, count) + value for key, (kind, count, value) in sorted(tags.items())
    )
    rest = struct.pack('<I', 0) + struct.pack(f'<{bands}H', *[8] * bands) + struct.pack(f'<{len(extra)}H', *extra)
    return b'II*\0' + struct.pack('<I', place) + values + directory + rest


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        (b'', 'it is empty'),
        (b'no image', 'not an image that Pillow reads'),
        (encoded(CAT, 'JPEG')[:3000], 'truncated'),
        (encoded(CAT, 'PNG')[:3000], 'truncated'),
        (encoded(CAT, 'JPEG')[:15], '.'),
        (encoded(CAT, 'PNG')[:40], '.'),
        (encoded(CAT, 'TIFF')[:3000], '.'),
        (encoded(CAT, 'WEBP')[:3000], '.'),
        (encoded(PIL.Image.fromarray(np.full((8, 8), 1000, np.float32)), 'TIFF'), r'floats of up to 1000, expected \['),
        (encoded(PIL.Image.fromarray(np.full((8, 8), -1, np.float32)), 'TIFF'), 'from -1 to -1, expected finite'),
        (encoded(PIL.Image.fromarray(np.full((8, 8), np.nan, np.float32)), 'TIFF'), 'from nan to nan'),
        (encoded(PIL.Image.fromarray(np.full((8, 8), 70_000, np.int32)), 'TIFF'), 'up to 70000, expected at most 16'),
        (tiff(4, (0,)), 'it has 4 channels, expected grey or RGB, with or without alpha'),
        (tiff(13, (0,) * 10), 'TIFF with unsupported channels'),
        (png(np.zeros((1, 1), int), 0, 8, size=(60_000, 60_000)), 'bomb'),
    ],
)  # fmt: skip
def test_images_that_cannot_be_used(file, message):
    with pytest.raises(decoding.UnusableError, match=message) as error:
        decoding.decode(file, 16)
    assert str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(decoding.UnusableError, match='No such file'):
        decoding.decode(tmp_path / 'gone.jpg', 16)
    with pytest.raises(decoding.UnusableError, match='Is a directory'):
        decoding.decode(tmp_path, 16)
    for read in (decoding.decode_whole, decoding.read_size):
        with pytest.raises(decoding.UnusableError, match='No such file'):
            read(tmp_path / 'gone.jpg')
        with pytest.raises(decoding.UnusableError, match='it is empty'):
            read(b'')


def test_heif_without_pillow_heif_names_the_package(monkeypatch):
    monkeypatch.setattr(decoding.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(decoding.UnusableError, match='pip install pillow-heif'):
        decoding.decode(b'\0\0\0\x18ftypheic' + bytes(64), 16)
