"""The command `prepare`: downloads and prepares tfds data sets, and converts prepared ones to another format."""

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
DISK_FACTOR = 1.05  # free disk space that is required, as a multiple of the size of the files


def prepare(name: str, data_dir: str = '', file_format: str = 'array_record') -> str:
    """Prepares a data set, or converts it if it is prepared in another format.

    Args:
      name: the tfds name, such as 'stl10' or 'voc/2007'.
      data_dir: the folder of tfds data sets, with downloads in its downloads/; '' means the default of tfds.
      file_format: one of FORMATS.

    Returns:
      A one-line report.

    Raises:
      DataError: the data set does not exist, files are missing that the user must download, the disk is too small, or
        a download fails.
    """
    if name == paths.PHOTOGRAPHS:
        raise DataError(f'{name} is built in and needs no preparation')
    if builder := tfds_data.find_builder(name, data_dir):
        formats = {available.value for available in builder.info.available_file_formats()}
        if file_format in formats:
            return f'{name} is already prepared in {builder.data_dir} as {", ".join(sorted(formats))}'
        _convert(builder, name, file_format)
        return f'{name} in {builder.data_dir} is converted to {file_format}'
    tfds_data.check_name(name)
    builder = _download(name, data_dir, file_format)
    counts = ', '.join(f'{info.num_examples:,} examples in {split}' for split, info in builder.info.splits.items())
    return f'{name} is prepared in {builder.data_dir} as {file_format}: {counts}'


def _convert(builder: Any, name: str, file_format: str) -> None:
    """Writes the examples of a prepared data set in another format, and keeps the old files.

    An interrupted conversion is resumed: complete files have their final name and are not written again.
    """
    from tensorflow_datasets.core import file_adapters

    adapter = file_adapters.ADAPTER_FOR_FORMAT[file_adapters.FileFormat(file_format)]
    _check_free_space(name, builder.data_dir, builder.info.dataset_size)
    tasks = []
    for split, info in builder.info.splits.items():
        records = tfds_data.open_records(builder, split)
        template = info.filename_template.replace(filetype_suffix=file_format)
        ends = [sum(info.shard_lengths[: n + 1]) for n in range(info.num_shards)]
        for shard, (end, length) in enumerate(zip(ends, info.shard_lengths)):
            path = Path(template.sharded_filepath(shard_index=shard, num_shards=info.num_shards))
            tasks.append((path, records, range(end - length, end)))
    for path, records, rows in track(tasks, f'converting {name}'):
        if path.exists() and adapter.num_examples(path) == len(rows):
            continue
        unfinished = path.with_name(f'{path.name}.part')
        adapter.write_examples(unfinished, ((row, bytes(records[row])) for row in rows))
        os.replace(unfinished, path)
    builder.info.add_alternative_file_format(file_format)
    with tempfile.TemporaryDirectory(
        dir=builder.data_dir
    ) as folder:  # replaces the file in one step, so it is never incomplete
        builder.info.write_dataset_info_json(folder)
        os.replace(Path(folder, 'dataset_info.json'), Path(builder.data_dir, 'dataset_info.json'))


def _download(name, data_dir, file_format):
    """Downloads and prepares a data set, and returns its builder."""
    try:
        host.hide_accelerators()
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f'{name}: tensorflow_datasets needs TensorFlow to prepare it, but {error}; install it with:'
            f' {host.TENSORFLOW}'
        ) from error
    try:
        builder = tfds.builder(name, data_dir=data_dir or None, file_format=file_format, try_gcs=False)
    except Exception as error:  # unknown configuration or version, or missing module
        raise DataError(f'{name}: {first_line(error)}') from error
    root = Path(builder.data_dir_root)
    manual = root / 'downloads' / 'manual'
    instructions = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if instructions and not (manual.is_dir() and any(manual.iterdir())):
        raise DataError(
            f'{name} has no automatic download. Put its original files into {manual} and run this command again:'
            f' {" ".join(instructions.split())}'
        )
    download, size = builder.info.download_size or 0, builder.info.dataset_size or 0
    print(f'{name}: {_format_bytes(download)} to download, {_format_bytes(size)} prepared', flush=True)
    _check_free_space(name, root, size + (0 if instructions else download))
    try:
        builder.download_and_prepare()
    # tfds passes on any exception: of the network, of missing or unexpected files, of missing modules.
    except Exception as error:
        raise DataError(
            f'{name} could not be prepared ({first_line(error)}); downloads are in {manual.parent}'
        ) from error
    return builder


def _check_free_space(name, folder, size):
    """Raises DataError if the disk has less free space than `size` bytes and a margin."""
    folder = Path(folder)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < DISK_FACTOR * size:
        raise DataError(
            f'{name} needs {_format_bytes(DISK_FACTOR * size)}, but {folder} has only {_format_bytes(free)} free'
        )


def _format_bytes(count):
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB' if count else 'an unknown size'
