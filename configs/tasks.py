"""The keys of the transfer tasks, a section each; configs/default.py has them among all others."""

from artifacts_jax.configs.declarations import choice, each, free, positive, within

GEOMETRIES = ('same', 'caffe', 'torch', 'centred')  # of models/alexnet.py

KNN = {
    'neighbours': each((20, 200), '[1, inf)'),  # k, a result for each, in the same pass; of a smaller bank all vote
    'temperature': positive(0.1),  # neighbours vote with the weight exp(cosine / temperature)
    'max_values': within(0, '[0, inf)'),  # feature maps are average-pooled to at most this many, 0: their mean
    'batch_size': positive(256),  # images in a batch for feature extraction
    'max_train': within(0, '[0, inf)'),  # use at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images, 0: all
}

LAYERWISE = {
    'preset': choice('zhang2016', 'fair', 'vissl', 'deepcluster', 'asano'),  # the protocol, of layerwise/presets.py
    'rate_factors': each((1.0,), '(0, inf)'),  # on its learning rate; a classifier for each, in the same passes
    'batch_size': within(0, '[0, inf)'),  # images in a global batch, 0: the preset's
    'epochs': within(0, '[0, inf)'),  # passes over data.probe_train, 0: the preset's; the rate drops in proportion
    'crop_size': within(0, '[0, inf)'),  # side of the crops, pixels of images of data.size; 0: the preset's
    'geometry': choice('preset', *GEOMETRIES),  # what stands around the trunk's maps; 'same' as in pretraining
    'ten_crop': free(False),  # test with ten crops, too
}

KEYS = {'knn': KNN, 'layerwise': LAYERWISE}
