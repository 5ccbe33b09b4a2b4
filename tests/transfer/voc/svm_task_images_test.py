import dataclasses

import numpy as np
import PIL.Image
import pytest

from artifacts_jax.data.voc import devkit
from artifacts_jax.transfer.voc import svm_task
from tests.transfer.voc import trees


@pytest.fixture
def images(tmp_path):
    """Returns (records, pixels) of three images of 24 x 16 pixels."""
    year, pixels = tmp_path / 'VOC2007', {}
    for n, name in enumerate(('a', 'b', 'c')):
        xml = trees.annotation(trees.an_object('cat', difficult=int(n == 1)), size=(24, 16))
        pixels[name] = trees.add(year, name, xml, size=(24, 16))
    trees.listed(year, 'test', *pixels)
    return devkit.open_voc(str(tmp_path), ['test'])['test'], pixels


def read(config, records, view, **hosts):
    config.voc_svm.update(view=view, crop_size=8)
    config.data.size = 8
    squares = dataclasses.replace(svm_task.open_images(config, records), **hosts)
    return squares, list(squares.eval_batches(2))


@pytest.mark.parametrize(('view', 'box'), [('whole', (0, 0, 16, 24)), ('centre', (0, 4, 16, 20))])
def test_views_equal_pillows(view, box, config, images):
    records, pixels = images
    _, batches = read(config, records, view)
    found = np.concatenate([batch['image'][batch['valid']] for batch in batches])
    for image, source in zip(found, pixels.values(), strict=True):
        expected = PIL.Image.fromarray(source).resize((8, 8), PIL.Image.Resampling.BILINEAR, box=box)
        np.testing.assert_array_equal(image, expected)
    labels = np.concatenate([batch['labels'][batch['valid']] for batch in batches])
    assert labels[:, 7].tolist() == [1, 0, 1]
    assert (np.delete(labels, 7, axis=1) == -1).all()


@pytest.mark.parametrize('view', ['whole', 'centre'])
def test_damaged_images_are_skipped_and_named(view, config, images):
    records, _ = images
    content = records[1].file.read_bytes()
    records[1].file.write_bytes(content[: len(content) // 2])
    squares, batches = read(config, records, view)
    assert sum(batch['valid'].sum() for batch in batches) == 2
    assert len(squares.skipped) == 1


def test_hosts_read_their_own_images(config, images):
    records, _ = images
    parts = [read(config, records, 'whole', process_index=n, process_count=2)[1] for n in range(2)]
    assert [[batch['index'][batch['valid']].tolist() for batch in part] for part in parts] == [[[0], [2]], [[1], []]]
