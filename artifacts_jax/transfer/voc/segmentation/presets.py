"""The published protocols of VOC12's segmentation, FCN-32s on AlexNet: every constant.

fcn is that of shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet/{net.py,solver.prototxt,train.prototxt}; zhang that of
richzhang/colorization, feature_learning_tests/segmentation/{train_val.prototxt,solver0,solver1,solver2}.

What they share: the mean over the valid pixels of each image of the cross-entropy, the mean of 20 such gradients for an
update, Caffe's momentum, and scores whose bias learns twice as fast and does not decay. The network file of the source
of fcn has the sum over pixels; its solver says that its rate is for the mean.
"""

from typing import NamedTuple

IMAGES = 20  # whose gradients are averaged, drawn with replacement
MOMENTUM = 0.9
DECAY = 5e-4
DROP = 0.1  # the learning rate becomes this part of it
SCORE_BIAS_RATE = 2.0  # and no decay


class Preset(NamedTuple):
    """The schedule, and what biases of the trunk, of fc6 and of fc7 have."""

    steps: int
    rate: float
    dropped: tuple[int, ...]  # after so many updates
    bias_rate: float
    bias_decay: float


PRESETS = {
    'fcn': Preset(100_000, 1e-4, (), 1.0, DECAY),
    'zhang': Preset(150_000, 1e-4, (50_000, 100_000), 2.0, 0.0),
}
