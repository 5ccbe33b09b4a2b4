import csv
import io
import shutil

import numpy as np
import PIL.Image
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import predict
from artifacts_jax.data import decoding
from artifacts_jax.data.errors import DataError
from artifacts_jax.exchange import exports
from artifacts_jax.transfer.voc.detection import detector, proposals
from artifacts_jax.transfer.voc.segmentation import segmenter as segmentation
from tests.transfer.voc.detection import made
from tests.transfer.voc.segmentation.made import segmenter


@pytest.fixture
def export(config, tmp_path):
    config.voc_detection.update(hidden=8, boxes=8, scales=(24,), longest=40)
    detector.save(tmp_path / 'export', made.detector(config), config, {'stage': 'voc_detection/test', 'step': 1})
    return str(tmp_path / 'export')


@pytest.fixture
def images(photograph_folder, tmp_path):
    """A folder with two crops of photographs (one in a subfolder), two damaged images, and a text file."""
    folder = tmp_path / 'images'
    (folder / 'below').mkdir(parents=True)
    shutil.copy(photograph_folder / 'test' / 'coffee' / '0.png', folder / 'a.png')
    shutil.copy(photograph_folder / 'test' / 'astronaut' / '0.png', folder / 'below' / 'a.png')
    (folder / 'cut.jpg').write_bytes(b'no image')
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(content, 'JPEG')
    (folder / 'half.jpg').write_bytes(content.getvalue()[: len(content.getvalue()) * 3 // 4])
    (folder / 'notes.txt').write_text('nothing')
    return folder


@pytest.mark.slow
def test_a_detector_draws_each_image_and_lists_its_boxes(export, images, tmp_path, capsys):
    boxes = [np.array([(1, 2, 9, 12), (0, 0, 15, 15)], np.float32)] * 3
    proposals.write_file(tmp_path / 'boxes.npz', ['a.png', 'below/a.png', 'half.jpg'], boxes)
    out = tmp_path / 'out'
    assert predict.predict_folder(export, images, out, min_score=0.01, proposals=str(tmp_path / 'boxes.npz')) == 2
    with (out / 'predictions.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert {row['image'] for row in rows} == {'a.png', 'below/a.png'}
    assert all(float(row['score']) >= 0.01 and float(row['x2']) <= 15 for row in rows)
    assert all(decoding.read_size(out / name)[1] > 900 for name in ('a.png.png', 'below/a.png.png'))
    warnings = capsys.readouterr().err
    assert 'skipped cut.jpg' in warnings
    assert 'skipped 1 of 3 images of the input so far: half.jpg' in warnings


@pytest.mark.slow
def test_a_segmenter_draws_each_image_and_lists_its_classes(config, images, tmp_path, capsys):
    segmentation.save(tmp_path / 'seg', segmenter(config), config, {'stage': 'voc_segmentation/test', 'step': 1})
    out = tmp_path / 'out'
    assert predict.predict_folder(str(tmp_path / 'seg'), images, out) == 2
    with (out / 'predictions.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row['part']) for row in rows) == pytest.approx(2, abs=0.01)
    assert all(decoding.read_size(out / 'labels' / name) == (16, 16) for name in ('a.png.png', 'below/a.png.png'))
    assert (out / 'a.png.png').is_file()
    assert 'skipped 1 of 3 images of the input so far: half.jpg' in capsys.readouterr().err
    with pytest.raises(configuration.ConfigError, match='is a segmenter, which uses no proposals'):
        predict.predict_folder(str(tmp_path / 'seg'), images, out, proposals='boxes.npz')


def test_wrong_arguments_are_errors(export, images, tmp_path, forks):
    with pytest.raises(configuration.ConfigError, match='is inside --images'):
        predict.predict_folder(export, images, images / 'out')
    with pytest.raises(exports.ExportError, match='is not an export'):
        predict.predict_folder(str(tmp_path / 'none'), images, tmp_path / 'out')
    printed = forks.refused('--export=x', f'--images={images}/a.png', f'--out={tmp_path}/out', module='predict')
    assert 'is not a directory' in printed
    assert not (tmp_path / 'out').exists()
    assert '--min_score=2: 2.0 is not a number' in forks.refused(
        '--export=x', '--least=2', module='predict'
    )  # old name


@pytest.mark.slow
def test_a_folder_named_labels_is_an_error(config, images, tmp_path):
    segmentation.save(tmp_path / 'seg', segmenter(config), config, {'stage': 'voc_segmentation/test', 'step': 1})
    (images / 'below').rename(images / 'labels')
    with pytest.raises(configuration.ConfigError, match=r'labels/a\.png: labels/ is reserved for'):
        predict.predict_folder(str(tmp_path / 'seg'), images, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_a_folder_without_a_readable_image_is_an_error(config, images, tmp_path):
    segmentation.save(tmp_path / 'seg', segmenter(config), config, {'stage': 'voc_segmentation/test', 'step': 1})
    for path in (images / 'a.png', images / 'below' / 'a.png'):
        path.unlink()
    with pytest.raises(DataError, match=r'no image in .* can be decoded \(see the warnings\)'):
        predict.predict_folder(str(tmp_path / 'seg'), images, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
