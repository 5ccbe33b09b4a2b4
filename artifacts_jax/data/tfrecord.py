"""TFRecord files as random-access sequences, without TensorFlow.

A record is: its length (uint64), the checksum of the length (uint32), its bytes, the checksum of the bytes, all
little-endian. A checksum is a rotated CRC-32C plus a constant. The file has no index, so each file is scanned once for
the offsets of its records, at the first access; the scan reads only the lengths.

Source: tensorflow/core/lib/io/record_writer.h.
"""

import dataclasses
import functools
import os
import struct
import threading
from collections.abc import Sequence
from typing import Any

import google_crc32c
import numpy as np
from jaxtyping import Int64

from artifacts_jax.data.errors import DataError

HEAD, TAIL = struct.Struct('<QI'), struct.Struct('<I')


@dataclasses.dataclass(frozen=True, eq=False)
class TFRecords(Sequence):
    """The concatenated records of several files."""

    paths: tuple[str, ...]
    lengths: tuple[int, ...]  # number of records of each file
    _offsets: dict = dataclasses.field(default_factory=dict)  # {index of a file: offsets of its records}
    _lock: Any = dataclasses.field(default_factory=threading.Lock)

    def __len__(self):
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]  # of Sequence: no slices
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._ends, index, side='right'))
        path, begin = self.paths[number], self._load_offsets(number)[index - self._ends[number]]  # counts from the end
        with open(path, 'rb') as file:
            file.seek(begin)
            length, _ = HEAD.unpack(file.read(HEAD.size))
            record, tail = file.read(length), file.read(TAIL.size)
        if len(tail) < TAIL.size or TAIL.unpack(tail)[0] != compute_checksum(record):
            raise DataError(f'{path} is damaged: the checksum of a record, at byte {begin:,}, is wrong')
        return record

    @functools.cached_property
    def _ends(self):
        return np.cumsum(self.lengths)

    def _load_offsets(self, number):
        with self._lock:
            if number not in self._offsets:
                self._offsets[number] = _scan(self.paths[number], self.lengths[number])
            return self._offsets[number]


def compute_checksum(data: bytes) -> int:
    """Returns the TFRecord checksum of some bytes, in [0, 2**32)."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def _scan(path: str, count: int) -> Int64[np.ndarray, ' count']:
    """Returns the offsets of the records of a file, bytes; raises DataError if the file is damaged."""
    offsets, begin, size = np.empty(count, np.int64), 0, os.path.getsize(path)
    with open(path, 'rb', buffering=HEAD.size) as file:  # a small buffer, so that only the lengths are read
        for n in range(count):
            file.seek(begin)
            head = file.read(HEAD.size)
            if len(head) < HEAD.size or HEAD.unpack(head)[1] != compute_checksum(head[:8]):
                raise DataError(f'{path} is damaged: record {n:,} of {count:,}, at byte {begin:,}, has no valid length')
            offsets[n] = begin
            begin += HEAD.size + HEAD.unpack(head)[0] + TAIL.size
    if begin != size:
        raise DataError(f'{path} is damaged: it has {size:,} bytes, expected {begin:,} for its {count:,} records')
    return offsets
