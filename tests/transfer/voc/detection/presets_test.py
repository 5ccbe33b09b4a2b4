"""The constants against the numbers of the protocol, written out again by hand."""

from artifacts_jax.configs import default, tasks
from artifacts_jax.models import roi_pooling
from artifacts_jax.transfer.voc.detection import detection_precision, nms, presets, sampling, selection


def test_constants_are_those_of_the_protocol():
    assert presets.PRESETS['single_scale'] == ((600,), 1000, 40_000, 0.001, 30_000)
    assert presets.PRESETS['multi_scale'] == ((480, 576, 688, 864, 1200), 2000, 40_000, 0.001, 30_000)
    assert (presets.DECAY, presets.BIAS_RATE, presets.DROP) == (0.0005, 2, 0.1)
    assert (sampling.COUNT, sampling.SHARE, sampling.BACKGROUND) == (64, 0.25, 0.1)
    assert (selection.MOST, selection.AVERAGE, nms.THRESHOLD) == (100, 40, 0.3)
    assert (roi_pooling.SIZE, roi_pooling.SCALE, presets.VIEWED) == (6, 1 / 16, 224)
    assert detection_precision.OVERLAP == 0.5


def test_keys_offer_what_there_is():
    assert tasks.VOC_DETECTION['preset'].values.split(', ') == list(presets.PRESETS)
    options = default.get_config().voc_detection
    assert (options.frozen, options.batch_size, options.regions) == (1, 2, sampling.COUNT)
