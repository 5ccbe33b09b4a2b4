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


def sample_features(*shape):
    """Returns features with distinct values in random order."""
    values = np.linspace(-1, 1, math.prod(shape), dtype=np.float32)
    return np.random.default_rng(0).permutation(values).reshape(shape)


def sample_boxes(random, count):
    """Returns boxes of all sizes, half of them at exact halves of cells; some are empty, some are outside."""
    corners = random.uniform(-60, 500, (count, 2, 2))
    corners[::2] = 16 * (random.integers(-4, 30, (len(corners[::2]), 2, 2)) + 0.5)
    corners[: count * 4 // 5].sort(axis=1)  # the others have no area
    boxes = corners.reshape(count, 4).astype(np.float32)
    boxes[1::10, 2:] = boxes[1::10, :2]
    boxes[3::20] += 2000
    boxes[4::20, 0] = -3000  # a very wide box with large bins
    return boxes


def reference_pool(features, box, size, scale=1 / 16):
    """Returns (maxima, flat indices of their cells or -1) of one box, in float32 like Caffe."""
    height, width, channels = features.shape

    def round_half_away(x):
        return int(math.copysign(math.floor(abs(float(x) * scale) + 0.5), x))

    x1, y1, x2, y2 = map(round_half_away, box)
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
    """Returns the result of onnxruntime for the boxes of one image."""
    names = [[helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in group] for group in ('xb', 'y')]
    node = helper.make_node('MaxRoiPool', ['x', 'b'], ['y'], pooled_shape=[size, size], spatial_scale=1 / 16)
    graph = helper.make_graph([node], 'graph', *names)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    rows = np.concatenate([np.zeros((len(boxes), 1), np.float32), boxes], axis=1)
    (result,) = session.run(None, {'x': features.transpose(2, 0, 1)[None].copy(), 'b': rows})
    return result.transpose(0, 2, 3, 1)


def test_pool_equals_onnxruntime_and_a_plain_loop():
    boxes = sample_boxes(np.random.default_rng(1), 300)
    features = sample_features(HEIGHT, WIDTH, CHANNELS)
    result = pool(features[None], boxes[None], np.ones((1, 300), bool))[0]
    np.testing.assert_array_equal(result, onnx_pool(features, boxes, 6))
    assert (np.asarray(result) == 0).any()
    for n in range(0, 300, 17):
        np.testing.assert_array_equal(result[n], reference_pool(features, boxes[n], 6)[0])


@pytest.mark.parametrize('size', [1, 5])
def test_pool_with_other_sizes_equals_onnxruntime(size):
    boxes = sample_boxes(np.random.default_rng(2), 40)
    features = sample_features(HEIGHT, WIDTH, CHANNELS)
    result = pool(features[None], boxes[None], np.ones((1, 40), bool), size=size)[0]
    np.testing.assert_array_equal(result, onnx_pool(features, boxes, size))


def test_integer_bin_edges_equal_those_in_floats():
    length = np.arange(1, 50_000)[:, None]
    bins, size = np.arange(7), 6
    edges = bins.astype(np.float32) * (length.astype(np.float32) / np.float32(size))
    np.testing.assert_array_equal(np.floor(edges), bins * length // size)
    np.testing.assert_array_equal(np.ceil(edges), -(-bins * length // size))


def test_halves_are_rounded_away_from_zero():
    before = np.nextafter(np.float32(0.5), np.float32(0))  # 0.5 + this number is rounded to 1
    result = roi_pooling._round_half_away(jnp.array([-1.5, -0.5, -before, before, 0.5, 1.5, 2.5, 3.49, 1e30]))
    assert result.tolist() == [-2, -1, 0, 0, 1, 2, 3, 3, roi_pooling.MAX_CELL]


@pytest.fixture(scope='module')
def images():
    """Returns (features, boxes, valid) of four images; one image has no boxes."""
    random = np.random.default_rng(3)
    boxes = np.stack([sample_boxes(random, 20) for _ in range(4)])
    valid = random.uniform(size=(4, 20)) < 0.8
    valid[1] = False
    return sample_features(4, HEIGHT, WIDTH, CHANNELS), boxes, valid


@jax.jit
def gradient_of(features, boxes, valid, weights):
    return jax.grad(lambda features: (roi_pooling.pool(features, boxes, valid) * weights).sum())(features)


def reference_gradient(features, boxes, valid, weights):
    """Returns the expected gradient: each weight is added to the cell with the maximum of its bin."""
    result = np.zeros_like(features)
    for b, n in zip(*np.nonzero(valid)):
        cells = reference_pool(features[b], boxes[b, n], 6)[1]
        for p, q, c in zip(*np.nonzero(cells >= 0)):
            y, x = divmod(cells[p, q, c], features.shape[2])
            result[b, y, x, c] += weights[b, n, p, q, c]
    return result


def test_each_image_uses_its_own_boxes_and_padding_is_zero(images):
    features, boxes, valid = images
    result = np.asarray(pool(features, boxes, valid))
    assert (result[~valid] == 0).all()
    for b, n in list(zip(*np.nonzero(valid)))[::3]:
        np.testing.assert_array_equal(result[b, n], reference_pool(features[b], boxes[b, n], 6)[0])


@pytest.mark.parametrize('levels', [None, 2])
def test_the_gradient_goes_to_the_first_maximum(images, levels):
    features, boxes, valid = images
    if levels:  # ties in nearly every bin
        features = np.digitize(features, np.linspace(-1, 1, levels + 1)).astype(np.float32)
    weights = np.random.default_rng(4).normal(size=(4, 20, 6, 6, CHANNELS)).astype(np.float32)
    result = np.asarray(gradient_of(features, boxes, valid, weights))
    np.testing.assert_allclose(result, reference_gradient(features, boxes, valid, weights), atol=1e-5)
    assert (result[1] == 0).all()


def test_the_gradient_equals_finite_differences_without_ties():
    features = 1e3 * sample_features(1, 5, 6, 2)  # value gaps larger than the step of the finite differences
    boxes = np.array([[[0, 0, 95, 79], [20, 10, 50, 70], [90, 70, 300, 300], [40, 40, 40, 40]]], np.float32)
    bound = partial(pool, boxes=boxes, valid=np.array([[True, True, True, False]]), size=3)
    check_grads(bound, (features,), order=1, modes=['rev'], eps=1.0, rtol=1e-3)


def test_boxes_get_no_gradient_and_bfloat16_gradients_are_summed_in_float32():
    features = jnp.ones((1, 4, 4, 1), jnp.bfloat16)
    boxes, valid = jnp.zeros((1, 300, 4)), jnp.ones((1, 300), bool)

    def total(features, boxes):
        return roi_pooling.pool(features, boxes, valid, size=1).astype(jnp.float32).sum()

    features_gradient, boxes_gradient = jax.jit(jax.grad(total, argnums=(0, 1)))(features, boxes)
    assert features_gradient.dtype == jnp.bfloat16
    assert features_gradient[0, 0, 0, 0] == 300  # a sum in bfloat16 stops at 256
    assert not boxes_gradient.any()


def test_no_boxes():
    features = jnp.ones((2, 3, 4, 5))
    none = jnp.zeros((2, 0, 4)), jnp.zeros((2, 0), bool)
    assert pool(features, *none).shape == (2, 0, 6, 6, 5)
    assert not gradient_of(features, *none, jnp.zeros((2, 0, 6, 6, 5))).any()


def test_images_stay_on_their_devices(images):
    features, boxes, valid = images
    weights = np.ones((4, 20, 6, 6, CHANNELS), np.float32)
    split = NamedSharding(Mesh(np.array(jax.devices()[:4]), ('data',)), PartitionSpec('data'))
    sharded = jax.device_put((features, boxes, valid, weights), split)
    np.testing.assert_array_equal(gradient_of(*sharded), gradient_of(features, boxes, valid, weights))
    compiled = gradient_of.lower(*sharded).compile().as_text()
    assert 'all-gather' not in compiled
    assert 'all-to-all' not in compiled
