import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import devkit, tfds_data
from artifacts_jax.data.voc.annotations import NAMES
from tests.transfer.voc.trees import add, an_object, annotation, listed

BOXES = np.array([[1, 1, 500, 333], [77, 332, 499, 333], [13, 250, 14, 251], [45.7, 2, 46.3, 7]], np.float32)
FULL = '<pose>Left</pose>'  # which tfds needs


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Returns (a folder VOC2007, {format: folder} of the same data set prepared by tfds)."""
    from tensorflow_datasets.core import registered
    from tensorflow_datasets.object_detection import voc

    root = tmp_path_factory.mktemp('voc')
    year = root / 'VOCdevkit' / 'VOC2007'
    nodes = [an_object(NAMES[3 * n], box, n % 2, n // 2) for n, box in enumerate(BOXES)] + [an_object(NAMES[3])]
    xml = annotation(*nodes, size=(333, 500)).replace('</name>', '</name>' + FULL)
    add(year, '000001', xml, size=(333, 500), suffix='.jpg')
    for name in ('000002', '000003', '000004', '000005'):
        add(year, name, annotation(), suffix='.jpg')
    for split, names in {'train': ('1', '2'), 'val': ('3', '4'), 'test': ('5',)}.items():
        listed(year, split, *(f'00000{name}' for name in names))
    with registered.skip_registration():

        class Voc(voc.Voc):
            def _split_generators(self, dl_manager):
                return {
                    name: self._generate_examples(str(root), split)
                    for name, split in {'train': 'train', 'validation': 'val', 'test': 'test'}.items()
                }

    formats = ('array_record', 'tfrecord', 'parquet')
    for file_format in formats:
        Voc(config='2007', data_dir=root / file_format, file_format=file_format).download_and_prepare()
    return year, {file_format: root / file_format for file_format in formats}


def by_name(records):
    return {record.name: record for record in records}


@pytest.mark.parametrize('file_format', ['array_record', 'tfrecord', 'parquet'])
def test_tfds_records_equal_those_of_the_folder(folders, file_format, capsys):
    year, prepared_in = folders
    splits = ('train', 'val', 'trainval', 'test')
    wanted = devkit.open_voc(str(year), splits)
    result = devkit.open_voc('voc/2007', splits, data_dir=str(prepared_in[file_format]))
    for split in splits:
        assert len(result[split]) == len(wanted[split])
        ours, theirs = by_name(result[split]), by_name(wanted[split])
        assert ours.keys() == theirs.keys()
        for name, record in ours.items():
            assert record.size == theirs[name].size
            assert record.read_mask() is None
            np.testing.assert_array_equal(record.read_image(), theirs[name].read_image())
            np.testing.assert_array_equal(record.labels, theirs[name].labels)
            for a, b in zip(record.objects, theirs[name].objects):
                assert a.dtype == b.dtype
                np.testing.assert_allclose(a, b, rtol=1e-5)
    np.testing.assert_array_equal(by_name(result['train'])['000001'].objects.boxes[:3], BOXES[:3])
    assert ('to convert it, run: python -m artifacts_jax.prepare voc/2007' in capsys.readouterr().out) == (
        file_format == 'tfrecord'
    )


def test_whole_pixel_coordinates_are_restored():
    for length in range(1, 1001):
        pixels = np.arange(1, length + 1)
        boxes = np.repeat((pixels / length).astype(np.float32)[:, None], 4, axis=1)
        np.testing.assert_array_equal(tfds_data.to_pixels(boxes, (length, length))[:, 0], pixels)


def test_reading_needs_no_tensorflow(folders):
    code = f"""
import sys
from artifacts_jax.data.voc import devkit
opened = devkit.open_voc('voc/2007', ['test'], data_dir={str(folders[1]['array_record'])!r})
[record.read_image() for record in opened['test']]
sys.exit('tensorflow' in sys.modules)
"""
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, '-c', code], check=False, cwd=root).returncode == 0


def test_missing_data_is_an_error(folders, tmp_path, monkeypatch):
    data_dir = str(folders[1]['array_record'])
    with pytest.raises(DataError, match=r"voc/2007 has no split 'dev'; expected one of: train, val, trainval, test"):
        devkit.open_voc('voc/2007', ['dev'], data_dir=data_dir)
    with pytest.raises(DataError, match=r'voc/2012 is not prepared .*python -m artifacts_jax.prepare voc/2012'):
        devkit.open_voc('voc/2012', ['val'], data_dir=str(tmp_path))
    (path,) = folders[1]['array_record'].rglob('*test*-of-*')
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match='damaged'):
        list(devkit.open_voc('voc/2007', ['test'], data_dir=data_dir)['test'])
    path.write_bytes(content)
