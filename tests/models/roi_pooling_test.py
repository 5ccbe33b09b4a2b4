import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads
from onnx import helper

from artifacts_jax.models import roi_pooling

HEIGHT, WIDTH, CHANNELS = 19, 26, 3
pool = jax.jit(roi_pooling.pool, static_argnames=('size', 'scale'))


def distinct(*shape):
    """Features of which no two are alike, in any order."""
    values = np.linspace(-1, 1, math.prod(shape), dtype=np.float32)
    return np.random.default_rng(0).permutation(values).reshape(shape)


def drawn(random, count):
    """Boxes of all sizes, every other on exact halves of cells; some have no area, some lie outside."""
    corners = random.uniform(-60, 500, (count, 2, 2))
    corners[::2] = 16 * (random.integers(-4, 30, (len(corners[::2]), 2, 2)) + 0.5)
    corners[: count * 4 // 5].sort(axis=1)  # the others are inside out
    boxes = corners.reshape(count, 4).astype(np.float32)
    boxes[1::10, 2:] = boxes[1::10, :2]
    boxes[3::20] += 2000
    boxes[4::20, 0] = -3000  # whose bins are larger than others
    return boxes


def slowly(features, box, size, scale=1 / 16):
    """(largest values, the flat cells that have them or -1) of one box, in float32 as Caffe computes it."""
    height, width, channels = features.shape

    def rounded(x):
        return int(math.copysign(math.floor(abs(float(x) * scale) + 0.5), x))

    x1, y1, x2, y2 = map(rounded, box)
    across, down = (np.float32(max(b - a + 1, 1)) / np.float32(size) for a, b in ((x1, x2), (y1, y2)))
    values, cells = np.zeros((size, size, channels), np.float32), np.full((size, size, channels), -1)
    for p in range(size):
        for q in range(size):
            top, bottom = math.floor(np.float32(p) * down) + y1, math.ceil(np.float32(p + 1) * down) + y1
            left, right = math.floor(np.float32(q) * across) + x1, math.ceil(np.float32(q + 1) * across) + x1
            for c in range(channels):
                for y in range(max(top, 0), min(bottom, height)):
                    for x in range(max(left, 0), min(right, width)):
                        if cells[p, q, c] < 0 or features[y, x, c] > values[p, q, c]:
                            values[p, q, c], cells[p, q, c] = features[y, x, c], y * width + x
    return values, cells


def onnx_pool(features, boxes, size):
    """What onnxruntime computes of the boxes of one image."""
    names = [[helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in part] for part in ('xb', 'y')]
    node = helper.make_node('MaxRoiPool', ['x', 'b'], ['y'], pooled_shape=[size, size], spatial_scale=1 / 16)
    graph = helper.make_graph([node], 'graph', *names)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    rows = np.concatenate([np.zeros((len(boxes), 1), np.float32), boxes], axis=1)
    (found,) = session.run(None, {'x': features.transpose(2, 0, 1)[None].copy(), 'b': rows})
    return found.transpose(0, 2, 3, 1)


def test_it_is_bit_for_bit_that_of_onnxruntime():
    boxes = drawn(np.random.default_rng(1), 300)
    features = distinct(HEIGHT, WIDTH, CHANNELS)
    found = pool(features[None], boxes[None], np.ones((1, 300), bool))[0]
    np.testing.assert_array_equal(found, onnx_pool(features, boxes, 6))
    assert (np.asarray(found) == 0).any()
    for n in range(0, 300, 17):
        np.testing.assert_array_equal(found[n], slowly(features, boxes[n], 6)[0])


@pytest.mark.parametrize('size', [1, 5])
def test_of_other_sizes_too(size):
    boxes = drawn(np.random.default_rng(2), 40)
    features = distinct(HEIGHT, WIDTH, CHANNELS)
    found = pool(features[None], boxes[None], np.ones((1, 40), bool), size=size)[0]
    np.testing.assert_array_equal(found, onnx_pool(features, boxes, size))


def test_edges_in_whole_numbers_are_those_in_floats():
    length = np.arange(1, 50_000)[:, None]
    bins, size = np.arange(7), 6
    edges = bins.astype(np.float32) * (length.astype(np.float32) / np.float32(size))
    np.testing.assert_array_equal(np.floor(edges), bins * length // size)
    np.testing.assert_array_equal(np.ceil(edges), -(-bins * length // size))


def test_halves_are_rounded_away_from_zero():
    before = np.nextafter(np.float32(0.5), np.float32(0))  # to which a half added is 1
    found = roi_pooling._round_half_away(jnp.array([-1.5, -0.5, -before, before, 0.5, 1.5, 2.5, 3.49, 1e30]))
    assert found.tolist() == [-2, -1, 0, 0, 1, 2, 3, 3, roi_pooling.MAX_CELL]


@pytest.fixture(scope='module')
def images():
    """(features, boxes, mask) of four images, one of which has no boxes."""
    random = np.random.default_rng(3)
    boxes = np.stack([drawn(random, 20) for _ in range(4)])
    mask = random.uniform(size=(4, 20)) < 0.8
    mask[1] = False
    return distinct(4, HEIGHT, WIDTH, CHANNELS), boxes, mask


@jax.jit
def gradient_of(features, boxes, mask, weights):
    return jax.grad(lambda features: (roi_pooling.pool(features, boxes, mask) * weights).sum())(features)


def scattered(features, boxes, mask, weights):
    """The weights, each added to the cell that has its bin's largest value."""
    found = np.zeros_like(features)
    for b, n in zip(*np.nonzero(mask)):
        cells = slowly(features[b], boxes[b, n], 6)[1]
        for p, q, c in zip(*np.nonzero(cells >= 0)):
            y, x = divmod(cells[p, q, c], features.shape[2])
            found[b, y, x, c] += weights[b, n, p, q, c]
    return found


def test_each_image_has_its_boxes_and_what_pads_them_is_zero(images):
    features, boxes, mask = images
    found = np.asarray(pool(features, boxes, mask))
    assert (found[~mask] == 0).all()
    for b, n in list(zip(*np.nonzero(mask)))[::3]:
        np.testing.assert_array_equal(found[b, n], slowly(features[b], boxes[b, n], 6)[0])


@pytest.mark.parametrize('levels', [None, 2])
def test_the_gradient_goes_to_the_first_largest_value(images, levels):
    features, boxes, mask = images
    if levels:  # ties in nearly every bin
        features = np.digitize(features, np.linspace(-1, 1, levels + 1)).astype(np.float32)
    weights = np.random.default_rng(4).normal(size=(4, 20, 6, 6, CHANNELS)).astype(np.float32)
    found = np.asarray(gradient_of(features, boxes, mask, weights))
    np.testing.assert_allclose(found, scattered(features, boxes, mask, weights), atol=1e-5)
    assert (found[1] == 0).all()


def test_it_is_the_gradient_away_from_ties():
    features = 1e3 * distinct(1, 5, 6, 2)  # steps that a difference quotient does not bridge
    boxes = np.array([[[0, 0, 95, 79], [20, 10, 50, 70], [90, 70, 300, 300], [40, 40, 40, 40]]], np.float32)
    bound = partial(pool, boxes=boxes, valid=np.array([[True, True, True, False]]), size=3)
    check_grads(bound, (features,), order=1, modes=['rev'], eps=1.0, rtol=1e-3)


def test_boxes_have_no_gradient_and_half_precision_sums_in_single():
    features = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
    boxes, mask = jnp.zeros((1, 300, 4)), jnp.ones((1, 300), bool)

    def total(features, boxes):
        return roi_pooling.pool(features, boxes, mask, size=1).astype(jnp.float32).sum()

    ours, theirs = jax.jit(jax.grad(total, argnums=(0, 1)))(features, boxes)
    assert ours.dtype == jnp.bfloat16
    assert ours[0, 0, 0, 0] == 300  # one after another, bfloat16 comes to 256
    assert not theirs.any()


def test_without_boxes_nothing_is_pooled():
    features = jnp.ones((2, 3, 4, 5))
    none = jnp.zeros((2, 0, 4)), jnp.zeros((2, 0), bool)
    assert pool(features, *none).shape == (2, 0, 6, 6, 5)
    assert not gradient_of(features, *none, jnp.zeros((2, 0, 6, 6, 5))).any()


def test_images_on_several_devices_stay_there(images):
    features, boxes, mask = images
    weights = np.ones((4, 20, 6, 6, CHANNELS), np.float32)
    split = NamedSharding(Mesh(np.array(jax.devices()[:4]), ('data',)), PartitionSpec('data'))
    apart = jax.device_put((features, boxes, mask, weights), split)
    np.testing.assert_array_equal(gradient_of(*apart), gradient_of(features, boxes, mask, weights))
    compiled = gradient_of.lower(*apart).compile().as_text()
    assert 'all-gather' not in compiled
    assert 'all-to-all' not in compiled
