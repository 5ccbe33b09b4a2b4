import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models.discriminator import scale_pixels
from artifacts_jax.transfer import confusion
from artifacts_jax.transfer.voc.segmentation import segmenter, stage
from tests.transfer.voc.segmentation import made

pytestmark = pytest.mark.usefixtures('little')


@pytest.mark.slow
def test_label_maps_do_not_depend_on_padding_and_batch(tree):
    config = made.small(tree)
    training = stage.Stage(NAME='voc_segmentation/test')
    state = training.init_state(jax.random.key(0), made.start(), config=config)
    score = {'kernel': jax.random.normal(jax.random.key(1), (1, 1, 8, 21)), 'bias': jnp.zeros(21)}
    variables = {'params': {**state.params, 'head': {**state.params['head'], 'score': score}}, 'batch_stats': {}}
    images, _ = made.images(config)
    predicted = dict(segmenter.make_segment_fn(config, Devices('jit'))(variables, images, 2))
    assert set(predicted) == {0, 1}
    apply, counts = jax.jit(segmenter.make_network(config).apply), 0
    for row, labels in predicted.items():
        record = images.records[row]
        scores = apply({'params': variables['params']}, scale_pixels(record.read_image()[None]))
        np.testing.assert_array_equal(labels, np.asarray(scores)[0].argmax(-1))
        counts += confusion.compute_matrix(record.read_mask(), labels, 21)
    np.testing.assert_array_equal(segmenter.compute_confusion(images.records, predicted.items())[0], counts)
