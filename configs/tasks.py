"""The keys of the transfer tasks, a section each; configs/default.py has them among all others."""

from artifacts_jax.configs.declarations import choice, each, free, positive, within

GEOMETRIES = ('same', 'caffe', 'torch', 'centred')  # of models/alexnet.py

LAYERWISE = {
    'preset': choice('zhang2016', 'fair', 'vissl', 'deepcluster', 'asano'),  # the protocol, of layerwise/presets.py
    'rate_factors': each((1.0,), '(0, inf)'),  # on its learning rate; a classifier for each, in the same passes
    'batch_size': within(0, '[0, inf)'),  # images in a global batch, 0: the preset's
    'epochs': within(0, '[0, inf)'),  # passes over data.probe_train, 0: the preset's; the rate drops in proportion
    'crop_size': within(0, '[0, inf)'),  # side of the crops, pixels of images of data.size; 0: the preset's
    'geometry': choice('preset', *GEOMETRIES),  # what stands around the trunk's maps; 'same' as in pretraining
    'ten_crop': free(False),  # test with ten crops, too
}

VOC_CLASSIFICATION = {
    'preset': choice('philkr', 'deepcluster'),  # the protocol, of voc/classification/presets.py
    'train': choice('all', 'fc6', 'fc8'),  # the layers that learn: all, or from this one on
    'steps': within(0, '[0, inf)'),  # updates, 0: the preset's; the rate is halved in proportion
    'learning_rate': within(0.0, '[0, inf)'),  # at the first update, 0: the preset's
    'batch_size': positive(16),  # images in a global batch
    'crop_size': positive(227),  # side of the crops, pixels
    'geometry': choice('caffe', 'same', 'torch', 'centred'),  # what stands around the trunk's maps
    'hidden': positive(4096),  # units of fc6 and fc7
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after fc6 and fc7
    'rescale': choice('new', 'all', 'none'),  # initialise fc6 and fc7 by the data; 'all': and balance all layers
}

KEYS = {'layerwise': LAYERWISE, 'voc_classification': VOC_CLASSIFICATION}
