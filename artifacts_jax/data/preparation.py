"""Preparing data sets by tfds, without its command line, and converting those that are prepared already."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rich.progress import track

from artifacts_jax.data import paths, tfds_data
from artifacts_jax.data.errors import DataError, first_line
from artifacts_jax.devices import host

FORMATS = ('array_record', 'parquet')
SPARE = 1.05  # times what is written must be free


def prepare(name: str, data_dir: str = '', file_format: str = 'array_record') -> str:
    """Prepares a data set, or converts it if it lies prepared in another format; returns what was done, as a line.

    Args:
      name: as tfds spells it, such as 'stl10' or 'voc/2007'.
      data_dir: where it shall lie, and what was downloaded lies in its downloads/; '' is tfds's own.
      file_format: one of FORMATS.

    Raises:
      DataError: there is no such data set, files are missing that must be put there by hand, the disk is too small, a
        download fails.
    """
    if name == paths.PHOTOGRAPHS:
        raise DataError(f'{name} needs no preparation: it is made of what is installed')
    if built := tfds_data.find_builder(name, data_dir):
        formats = {each.value for each in built.info.available_file_formats()}
        if file_format in formats:
            return f'{name} is prepared already, in {built.data_dir}, as {", ".join(sorted(formats))}'
        _convert(built, name, file_format)
        return f'{name} in {built.data_dir} is now there as {file_format}, too'
    tfds_data.check_name(name)
    built = _download(name, data_dir, file_format)
    counts = ', '.join(f'{info.num_examples:,} examples in {split}' for split, info in built.info.splits.items())
    return f'{name} is prepared in {built.data_dir} as {file_format}: {counts}'


def _convert(built: Any, name: str, file_format: str) -> None:
    """Writes the examples of a prepared data set in another format, beside the files that there are.

    What an earlier attempt has written is kept: a file gets its name when it is whole.
    """
    from tensorflow_datasets.core import file_adapters

    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
    _check_room(name, built.data_dir, built.info.dataset_size)
    tasks = []
    for split, info in built.info.splits.items():
        records = tfds_data.open_records(built, split)
        template = info.filename_template.replace(filetype_suffix=file_format)
        ends = [sum(info.shard_lengths[: n + 1]) for n in range(info.num_shards)]
        for shard, (end, length) in enumerate(zip(ends, info.shard_lengths)):
            path = Path(template.sharded_filepath(shard_index=shard, num_shards=info.num_shards))
            tasks.append((path, records, range(end - length, end)))
    for path, records, rows in track(tasks, f'converting {name}'):
        if path.exists() and adapter.num_examples(path) == len(rows):
            continue
        part = path.with_name(f'{path.name}.part')
        adapter.write_examples(part, ((row, bytes(records[row])) for row in rows))
        os.replace(part, path)
    built.info.add_alternative_file_format(file_format)
    with tempfile.TemporaryDirectory(dir=built.data_dir) as folder:  # the file is whole, or as it was
        built.info.write_dataset_info_json(folder)
        os.replace(Path(folder, 'dataset_info.json'), Path(built.data_dir, 'dataset_info.json'))


def _download(name, data_dir, file_format):
    """Returns the builder of a data set that it has downloaded and prepared."""
    try:
        host.hide_accelerators()
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f'{name}: tensorflow_datasets needs TensorFlow to prepare it, but {error}; install it with:'
            f' {host.TENSORFLOW}'
        ) from error
    try:
        built = tfds.builder(name, data_dir=data_dir or None, file_format=file_format, try_gcs=False)
    except Exception as error:  # of an unknown configuration or version, or of a module that is missing
        raise DataError(f'{name}: {first_line(error)}') from error
    root = Path(built.data_dir_root)
    manual = root / 'downloads' / 'manual'
    by_hand = built.MANUAL_DOWNLOAD_INSTRUCTIONS
    if by_hand and not (manual.is_dir() and any(manual.iterdir())):
        raise DataError(
            f'{name} cannot be downloaded by a program. Put its files into {manual} as they are, and run this again:'
            f' {" ".join(by_hand.split())}'
        )
    download, size = built.info.download_size or 0, built.info.dataset_size or 0
    print(f'{name}: {_bytes(download)} to download, {_bytes(size)} prepared', flush=True)
    _check_room(name, root, size + (0 if by_hand else download))
    try:
        built.download_and_prepare()
    # Of the network, of files that are missing or others than expected, of modules that a data set needs: tfds raises
    # whatever it meets.
    except Exception as error:
        raise DataError(f'{name} could not be prepared ({first_line(error)}); files go to {manual.parent}') from error
    return built


def _check_room(name, folder, size):
    """Raises DataError if a disk has no room."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < SPARE * size:
        raise DataError(f'{name} takes {_bytes(SPARE * size)}, but {folder} has {_bytes(free)} free')


def _bytes(count):
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB' if count else 'an unknown size'
