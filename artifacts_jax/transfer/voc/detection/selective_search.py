"""Region proposals by OpenCV's selective search, saved on disk, because they take seconds per image and hours for VOC.

The folder has a file NAME.npz per image, with its boxes and a record of the image and settings that gave them. Saved
boxes are used again, so a killed run resumes where it stopped. If the image with a name or the settings have changed,
the boxes are computed and saved again.

The boxes are a function of the image. OpenCV returns them in random order, so they are sorted.
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

PROVENANCE = 'made_from'  # name of the array in the files, as in earlier versions

MAX_SIDE = 500  # pixels, as in VOC; larger images are scaled down for the search
SETTINGS = {'mode': 'fast', 'side': MAX_SIDE}
MAX_LINES = 20  # of progress, if the output is not a terminal with a progress bar


def search(image: UInt8[np.ndarray, 'H W 3']) -> Float32[np.ndarray, 'N 4']:
    """Returns the boxes of an image, sorted: x1 y1 x2 y2, 0-based; both corner pixels belong to the box.

    An image with a side of more than 500 pixels is scaled down for the search.

    Args:
      image: RGB, values from 0 to 255.

    Raises:
      DataError: OpenCV with its contributed modules is not installed.
    """
    method = _opencv().ximgproc.segmentation.createSelectiveSearchSegmentation()
    scaled = decoding.limit_size(image, MAX_SIDE)
    method.setBaseImage(np.ascontiguousarray(scaled[..., ::-1]))  # BGR
    method.switchToSelectiveSearchFast()
    boxes = method.process().astype(np.float32)  # x, y, width, height
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    sides = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    scale = sides / np.array([scaled.shape[1], scaled.shape[0]] * 2, np.float32)
    return np.unique(np.minimum(corners * scale, sides) - np.array([0, 0, 1, 1], np.float32), axis=0)


def search_records(
    records: Sequence, folder: Path, *, workers: int = 0
) -> tuple[list[Float32[np.ndarray, '_ 4']], dict[str, str]]:
    """Returns the boxes of images: saved ones from the folder, and new ones, which are saved in the folder.

    Args:
      records: the records of the images.
      folder: the folder of the saved boxes; several runs may share it.
      workers: number of processes; 0: one per CPU.

    Returns:
      (the boxes of each image as `search` returns them, {name: reason} of the images that cannot be decoded and so have
      no boxes).

    Raises:
      DataError: OpenCV with its contributed modules is not installed, or a process was killed.
      ConfigError: the file system does not support locks.
    """
    folder = Path(folder)
    all_boxes = _read_saved(folder, records)
    if all(boxes is not None for boxes in all_boxes):
        return all_boxes, {}
    _opencv()
    unusable = {}
    with host.exclusive_lock(folder, should_wait=True):
        all_boxes = _read_saved(folder, records)  # another run may have saved boxes in the meantime
        missing = [n for n, boxes in enumerate(all_boxes) if boxes is None]
        workers = min(workers or host.cpus(), len(missing))
        print(
            f'selective search: {len(missing):,} of {len(all_boxes):,} images, {workers} processes, some seconds per'
            f' image; boxes are saved in {folder}',
            flush=True,
        )
        for n, boxes, reason in _report_progress(_search_missing(records, missing, folder, workers), len(missing)):
            all_boxes[n] = boxes
            if reason:
                unusable[records[n].name] = reason
    return all_boxes, unusable


def _opencv() -> Any:
    try:
        import cv2

        _ = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation
    except (ImportError, AttributeError) as error:  # AttributeError: OpenCV without contributed modules
        raise DataError(
            f"selective search needs OpenCV with its contributed modules ({error}): pip install -e '.[voc]', or use a"
            f' .mat or .npz file of proposals'
        ) from error
    return cv2


def _read_saved(folder, records):
    """Returns the saved boxes of each image, None if the folder does not have them."""
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
    except (DataError, KeyError, ValueError, OSError):  # a damaged file, or a missing image, which the search reports
        return None


def _path(folder, record):
    return Path(folder) / f'{record.name}.npz'


def _provenance(record):
    """Returns a JSON text of everything that the boxes of an image depend on."""
    content = record.file if isinstance(record.file, bytes) else record.file.read_bytes()
    image = hashlib.blake2b(content, digest_size=16).hexdigest()
    return json.dumps({'image': image, 'size': record.size, **SETTINGS})


def _search_missing(records, missing, folder, workers):
    """Yields (position, boxes, reason why the image has none or '') in the order of completion.

    Records are read one at a time, because they may hold the images in memory.
    """
    if workers == 1:
        yield from (_search_and_save(n, records[n], folder) for n in missing)
        return
    # Processes are spawned, because a fork would lose the threads of JAX and other libraries.
    # This is not joblib, whose processes live for five minutes after the program was killed; these end at once.
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context('spawn'), _init_worker)
    try:
        running = set()
        for n in missing:
            running.add(pool.submit(_search_and_save, n, records[n], folder))
            while len(running) > 2 * workers:
                done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in concurrent.futures.as_completed(running))
    except BrokenProcessPool as error:
        raise DataError(
            'a process of selective search was killed, perhaps because of too little memory; its boxes are saved: run'
            ' the same command again, with a smaller data.workers'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _init_worker():
    """Initialises a worker process: it uses one CPU, and ends when its parent ends for any reason."""

    def exit_with_parent():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    _opencv().setNumThreads(1)


def _search_and_save(n, record, folder):
    """Returns (n, boxes, ''), or (n, no boxes, reason) if the image cannot be decoded."""
    try:
        image = record.read_image()
    except decoding.UnusableError as error:
        return n, np.zeros((0, 4), np.float32), str(error)
    boxes, file = search(image), io.BytesIO()
    np.savez_compressed(file, boxes=boxes, **{PROVENANCE: _provenance(record)}, opencv=_opencv().__version__)
    write_atomically(_path(folder, record), file.getvalue())
    return n, boxes, ''


def _report_progress(results: Iterator, total: int) -> Iterator:
    """Yields the results and shows a progress bar in a terminal, or else prints up to MAX_LINES lines."""
    if sys.stdout.isatty():
        yield from track(results, 'selective search', total=total)
        return
    start, every = time.monotonic(), max(1, total // MAX_LINES)
    for n, result in enumerate(results, 1):
        yield result
        if n % every == 0:
            seconds = time.monotonic() - start
            minutes_left = (total - n) * seconds / n / 60
            print(
                f'selective search: {n:,}/{total:,}  {n / seconds:.1f} images/s  {minutes_left:.1f} min left',
                flush=True,
            )
