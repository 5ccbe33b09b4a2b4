"""Boxes by selective search, as OpenCV has it, kept on disk: seconds for an image, hours for VOC.

A folder has NAME.npz for each image: its boxes, and what they were made from. What is there is not searched again, so
that a run which was killed goes on where it was. Where the image of a name, or how it is searched, has become another
one, its file is written anew.

The boxes are a function of the image, but OpenCV returns them in random order: they are sorted.
"""

import concurrent.futures
import hashlib
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from rich.progress import track

from artifacts_jax.data import decoding, npz
from artifacts_jax.data.errors import DataError
from artifacts_jax.devices import host
from artifacts_jax.files import write_atomically

PROVENANCE = 'made_from'  # the name in the files, which earlier versions have written

MAX_SIDE = 500  # of a larger image, when it is searched: the largest side of VOC's images
SETTINGS = {'mode': 'fast', 'side': MAX_SIDE}
MAX_LINES = 20  # are printed in all, where there is no terminal to draw a bar in


def search(image: UInt8[np.ndarray, 'H W 3']) -> Float32[np.ndarray, 'N 4']:
    """Returns the boxes of an image: x1 y1 x2 y2, sorted; pixels are counted from 0, and those named belong to a box.

    An image with a side of more than 500 pixels is scaled down for it.

    Args:
      image: in RGB, 0 to 255.

    Raises:
      DataError: OpenCV with its contributed modules is not installed.
    """
    method = _opencv().ximgproc.segmentation.createSelectiveSearchSegmentation()
    fitted = decoding.limit_size(image, MAX_SIDE)
    method.setBaseImage(np.ascontiguousarray(fitted[..., ::-1]))  # it reads BGR
    method.switchToSelectiveSearchFast()
    found = method.process().astype(np.float32)  # x, y, width, height
    ends = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
    sides = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    scale = sides / np.array([fitted.shape[1], fitted.shape[0]] * 2, np.float32)
    return np.unique(np.minimum(ends * scale, sides) - np.array([0, 0, 1, 1], np.float32), axis=0)


def search_records(
    records: Sequence, folder: Path, *, workers: int = 0
) -> tuple[list[Float32[np.ndarray, '_ 4']], dict[str, str]]:
    """Returns the boxes of images, as `search` does, each from the folder or searched and kept there.

    Args:
      records: of the images.
      folder: keeps the boxes; several runs may share it.
      workers: processes that search, 0: as many as there are CPUs.

    Returns:
      (the boxes of each image, {name: why it cannot be read} of those images that have none for this reason).

    Raises:
      DataError: OpenCV with its contributed modules is not installed, or a process was killed.
      ConfigError: the file system has no locks.
    """
    folder = Path(folder)
    found = _read_saved(folder, records)
    if all(boxes is not None for boxes in found):
        return found, {}
    _opencv()
    unusable = {}
    with host.exclusive_lock(folder, should_wait=True):
        found = _read_saved(folder, records)  # another run may have searched meanwhile
        missing = [n for n, boxes in enumerate(found) if boxes is None]
        workers = min(workers or host.cpus(), len(missing))
        print(
            f'selective search: {len(missing):,} of {len(found):,} images, by {workers} processes, seconds each; kept'
            f' in {folder}',
            flush=True,
        )
        for n, boxes, reason in _shown(_searched(records, missing, folder, workers), len(missing)):
            found[n] = boxes
            if reason:
                unusable[records[n].name] = reason
    return found, unusable


def _opencv() -> Any:
    try:
        import cv2

        _ = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation
    except (ImportError, AttributeError) as error:  # the latter of an OpenCV without contributed modules
        raise DataError(
            f"selective search needs OpenCV with its contributed modules ({error}): pip install -e '.[voc]', or give a"
            f' file of proposals, .mat or .npz'
        ) from error
    return cv2


def _read_saved(folder, records):
    """Returns the boxes of each image that the folder has, None of another."""
    with concurrent.futures.ThreadPoolExecutor(host.cpus()) as pool:
        return list(pool.map(lambda n: _read(folder, records[n]), range(len(records))))


def _read(folder, record):
    path = _path(folder, record)
    try:
        if not path.exists():
            return None
        with npz.open_npz(path) as archive:
            provenance, boxes = (npz.read_array(archive, name) for name in (PROVENANCE, 'boxes'))
        return boxes if provenance.item() == _provenance(record) else None
    except (DataError, KeyError, ValueError, OSError):  # damaged, or no image to compare with: the search says so
        return None


def _path(folder, record):
    return Path(folder) / f'{record.name}.npz'


def _provenance(record):
    """Returns what the boxes of an image depend on, as text."""
    content = record.file if isinstance(record.file, bytes) else record.file.read_bytes()
    image = hashlib.blake2b(content, digest_size=16).hexdigest()
    return json.dumps({'image': image, 'size': record.size, **SETTINGS})


def _searched(records, missing, folder, workers):
    """Yields (position, boxes, why there are none) of images as they are searched, by processes if there are several.

    Records are taken when they are needed: they may hold the images.
    """
    if workers == 1:
        yield from (_search_and_keep(n, records[n], folder) for n in missing)
        return
    # Threads of JAX and of others would not outlive a fork.
    # joblib's processes stay for five minutes after the program was killed; these end at once.
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _begin)
    try:
        running = set()
        for n in missing:
            running.add(pool.submit(_search_and_keep, n, records[n], folder))
            while len(running) > 2 * workers:
                done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (each.result() for each in done)
        yield from (each.result() for each in concurrent.futures.as_completed(running))
    except BrokenProcessPool as error:
        raise DataError(
            'a process of selective search was killed, perhaps since memory was short; what it has found is kept: run'
            ' the same command again, with a smaller data.workers'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin():
    """Prepares a process: it ends with the one that has started it, however that ends, and uses one CPU."""

    def follow():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the other one, too
    _opencv().setNumThreads(1)


def _search_and_keep(n, record, folder):
    try:
        image = record.read_image()
    except decoding.UnusableError as error:
        return n, np.zeros((0, 4), np.float32), str(error)
    boxes, file = search(image), io.BytesIO()
    np.savez_compressed(file, boxes=boxes, **{PROVENANCE: _provenance(record)}, opencv=_opencv().__version__)
    write_atomically(_path(folder, record), file.getvalue())
    return n, boxes, ''


def _shown(results: Iterator, total: int) -> Iterator:
    """Yields the results with a bar of how many there are, or a line now and then."""
    if sys.stdout.isatty():
        yield from track(results, 'selective search', total=total)
        return
    start, every = time.monotonic(), max(1, total // MAX_LINES)
    for n, result in enumerate(results, 1):
        yield result
        if n % every == 0:
            seconds = time.monotonic() - start
            left = (total - n) * seconds / n / 60
            print(f'selective search: {n:,}/{total:,}  {n / seconds:.1f} images/s  {left:.1f} min left', flush=True)
