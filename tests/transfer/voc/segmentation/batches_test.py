import dataclasses

import numpy as np
import pytest

from artifacts_jax.transfer.voc.segmentation import batches
from tests.transfer.voc.segmentation import made

pytestmark = pytest.mark.usefixtures('little')


def test_images_are_sampled_with_replacement_and_not_changed(tree):
    images, tests = made.images(made.small(tree))
    rows = [row for step in range(100) for row in images.views(step, 4)]
    assert set(rows) == {0, 1, 2, 3}
    assert rows != [row for step in range(100) for row in sorted(set(images.views(step, 4)))]
    batch = images.batch(3, 4)
    sizes = [images.records[n].size for n in images.views(3, 4)]
    assert batch['image'].shape[1:3] == batches.compute_padded_size(sizes)
    for n, row in enumerate(images.views(3, 4)):
        record, (height, width) = images.records[row], batch['size'][n]
        np.testing.assert_array_equal(batch['image'][n, :height, :width], record.read_image())
        np.testing.assert_array_equal(batch['labels'][n, :height, :width], record.read_mask())
        assert (batch['labels'][n, height:] == 255).all()
        assert (batch['labels'][n, :, width:] == 255).all()
    halves = [
        batches.Images(records=images.records, seed=images.seed, process_index=n, process_count=2).batch(3, 4)
        for n in (0, 1)
    ]
    for name, x in batch.items():
        np.testing.assert_array_equal(x, np.concatenate([half[name] for half in halves]))
    (test_batch,) = tests['val'].eval_batches(4)
    assert test_batch['valid'].tolist() == [True, True, False, False]


def test_an_image_that_cannot_be_decoded_has_void_labels_and_is_not_valid(tree, tmp_path):
    images, _ = made.images(made.small(tree))
    damaged = tmp_path / 'damaged.png'
    damaged.write_bytes(images.records[0].file.read_bytes()[:100])
    broken = [dataclasses.replace(images.records[0], file=damaged), *images.records[1:]]
    images = batches.Images(records=broken, seed=0)
    step = next(n for n in range(20) if 0 in images.views(n, 4))
    position = images.views(step, 4).index(0)
    assert (images.batch(step, 4)['labels'][position] == 255).all()
    (test_batch,) = images.eval_batches(4)
    assert test_batch['valid'].tolist() == [False, True, True, True]
    assert len(images.skipped) == 1
