"""The arrays of .npz files: those stored uncompressed can be mapped, which np.load does not. Nothing is unpickled."""

import contextlib
import lzma
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from artifacts_jax.data.errors import DataError

UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
# Headers are parsed as Python, which by several threads fails at random in some of its versions: cpython issue 106905.
PARSING = threading.Lock()
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens an .npz, while the context lasts.

    Raises:
      DataError: it is not there, or something that is asked for in the context cannot be read of it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise DataError(f'there is no file {path}; expected FOLDER/SPLIT.npz, or one FILE.npz') from error
    except UNREADABLE as error:
        raise DataError(
            f'{path} cannot be read as .npz, or is damaged ({error or type(error).__name__}): write it again, with'
            f' np.savez or np.savez_compressed'
        ) from error


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """Returns the names of the arrays of an .npz."""
    return [name.removesuffix('.npy') for name in archive.namelist() if name.endswith('.npy')]


def read_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and type of an array, of which no more is read."""
    return _header(archive, name)[:2]


def read_array(archive: zipfile.ZipFile, name: str) -> Shaped[np.ndarray, '...']:
    """Returns an array, read into memory; its checksum is compared."""
    with PARSING, archive.open(f'{name}.npy') as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # the checksum is compared at the end
    return array


def map_array(archive: zipfile.ZipFile, name: str) -> Shaped[np.ndarray, '...']:
    """Returns an array, as a read-only map of the file where it is stored uncompressed, else read."""
    member = archive.getinfo(f'{name}.npy')
    if member.compress_type != zipfile.ZIP_STORED:
        return read_array(archive, name)
    shape, dtype, columns_first, start = _header(archive, name)
    with open(str(archive.filename), 'rb') as file:
        file.seek(member.header_offset + 26)  # the lengths of the name, and of what else precedes the member's bytes
        start += member.header_offset + 30 + sum(struct.unpack('<HH', file.read(4)))
    return np.memmap(str(archive.filename), dtype, 'r', start, shape, 'F' if columns_first else 'C')


def _header(archive, name):
    """Returns shape and type of an array, whether columns come first, and where in its member the data begin."""
    member = archive.getinfo(f'{name}.npy')
    with PARSING, archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f'{name} has the format {version} of .npy')
        shape, columns_first, dtype = HEADERS[version](file)
        start = file.tell()
    if not dtype.hasobject and member.file_size - start != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f'{name} has {member.file_size - start:,} bytes, other than {dtype} {list(shape)} takes')
    return shape, dtype, columns_first, start
