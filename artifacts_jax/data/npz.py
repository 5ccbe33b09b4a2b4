"""Reads arrays of .npz files; uncompressed arrays can be memory-mapped, unlike with np.load. Nothing is unpickled."""

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
# NumPy parses headers as Python literals, which fails at random in several threads: cpython issue 106905.
PARSING = threading.Lock()
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@contextlib.contextmanager
def open_npz(path: Path) -> Iterator[zipfile.ZipFile]:
    """Yields an open .npz file.

    Raises:
      DataError: the file does not exist, or an array that is used in the context cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError as error:
        raise DataError(f'the file {path} does not exist; expected FOLDER/SPLIT.npz, or one FILE.npz') from error
    except UNREADABLE as error:
        raise DataError(
            f'{path} cannot be read as an .npz file ({error or type(error).__name__}): write it again with np.savez or'
            f' np.savez_compressed'
        ) from error


def array_names(archive: zipfile.ZipFile) -> list[str]:
    """Returns the names of the arrays in an .npz file."""
    return [name.removesuffix('.npy') for name in archive.namelist() if name.endswith('.npy')]


def read_header(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and type of an array; reads only its header."""
    return _header(archive, name)[:2]


def read_array(archive: zipfile.ZipFile, name: str) -> Shaped[np.ndarray, '...']:
    """Returns an array in memory, after a check of its checksum (CRC)."""
    with PARSING, archive.open(f'{name}.npy') as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # zipfile verifies the checksum at the end of the file
    return array


def map_array(archive: zipfile.ZipFile, name: str) -> Shaped[np.ndarray, '...']:
    """Returns an array, memory-mapped and read-only if it is stored uncompressed, else in memory."""
    member = archive.getinfo(f'{name}.npy')
    if member.compress_type != zipfile.ZIP_STORED:
        return read_array(archive, name)
    shape, dtype, is_fortran, start = _header(archive, name)
    with open(str(archive.filename), 'rb') as file:
        file.seek(member.header_offset + 26)  # lengths of the name and of the extra field
        start += member.header_offset + 30 + sum(struct.unpack('<HH', file.read(4)))
    return np.memmap(str(archive.filename), dtype, 'r', start, shape, 'F' if is_fortran else 'C')


def _header(archive, name):
    """Returns (shape, type, whether it is in Fortran order, offset of the data in the zip member) of an array."""
    member = archive.getinfo(f'{name}.npy')
    with PARSING, archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f'{name} has the unsupported .npy version {version}')
        shape, is_fortran, dtype = HEADERS[version](file)
        start = file.tell()
    if not dtype.hasobject and member.file_size - start != dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise ValueError(f'{name} has {member.file_size - start:,} bytes, which does not match {dtype} {list(shape)}')
    return shape, dtype, is_fortran, start
