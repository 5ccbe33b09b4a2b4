"""The published protocols of VOC07's classification: every constant, with its source.

philkr is that of philkr/voc-classification, src/train_cls.py. deepcluster is the same program as it is run by
facebookresearch/deepcluster, eval_voc_classif_all.sh and eval_voc_classif_fc6_8.sh.

What they share: the crops of voc/crops.py, the mean over the batch of the sum over classes of sigmoid cross-entropies,
Caffe's momentum of 0.9, biases that learn twice as fast, weight decay of weights and biases, and a gradient whose norm
is cut.
"""

from typing import NamedTuple

CROPS = 10  # of a test image, over which the outputs are summed
DECAY = 1e-6
BIAS_RATE = 2.0
CLIP = 10.0
TRAINED = ('all', 'fc6', 'fc8')  # from which layer on, conv1 being 'all'


class Preset(NamedTuple):
    """Updates, the first learning rate, and after how many updates it is halved, again and again."""

    steps: int
    rate: float
    halved: int


PRESETS = {
    'philkr': dict.fromkeys(TRAINED, Preset(80_000, 1e-3, 10_000)),
    'deepcluster': {
        'all': Preset(150_000, 1e-3, 20_000),
        'fc6': Preset(150_000, 3e-3, 5_000),
        'fc8': Preset(150_000, 3e-3, 5_000),  # not in the source: as from fc6
    },
}
