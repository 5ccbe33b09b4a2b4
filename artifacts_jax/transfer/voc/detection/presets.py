"""The published protocol of VOC07's detection, Fast R-CNN's with AlexNet, on one scale and on five: every constant.

Source: rbgirshick/fast-rcnn, models/CaffeNet/{solver,train}.prototxt, experiments/cfgs/multiscale.yml and
tools/train_net.py; sampling.py, nms.py and selection.py have those of regions and of detections.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

DECAY = 5e-4  # of weights; biases have none
BIAS_RATE = 2.0
DROP = 0.1  # the learning rate becomes this part of it, once
VIEWED = 224  # pixels: of several scales, a box is tested at the one that makes its area nearest to that of this square


class Preset(NamedTuple):
    """The scales, and the schedule."""

    scales: tuple[int, ...]  # lengths of an image's shorter side, pixels
    longest: int  # what the longer side may be
    steps: int = 40_000
    rate: float = 1e-3
    dropped: int = 30_000  # updates at the first rate


PRESETS = {
    'single_scale': Preset((600,), 1000),
    'multi_scale': Preset((480, 576, 688, 864, 1200), 2000),
}


def seen_at(config: ConfigDict) -> tuple[dict[str, tuple[int, ...]], int]:
    """Returns ({'train', 'test'}: lengths of images' shorter side, the most that their longer one may be)."""
    options, preset = config.voc_detection, PRESETS[config.voc_detection.preset]
    train = tuple(options.scales) if any(options.scales) else preset.scales
    test = tuple(options.test_scales) if any(options.test_scales) else train
    return {'train': train, 'test': test}, options.longest or preset.longest
