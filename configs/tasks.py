"""The keys of the transfer tasks, a section each; configs/default.py has them among all others."""

from artifacts_jax.configs.declarations import choice, each, free, named, positive, subset, within

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
PARTS = ('all', 'low_shot')  # of voc_svm
GEOMETRIES = ('same', 'caffe', 'torch', 'centred')  # of models/alexnet.py

KNN = {
    'neighbours': each((20, 200), '[1, inf)'),  # k, a result for each, in the same pass; of a smaller bank all vote
    'temperature': positive(0.1),  # neighbours vote with the weight exp(cosine / temperature)
    'max_values': within(0, '[0, inf)'),  # feature maps are average-pooled to at most this many, 0: their mean
    'batch_size': positive(256),  # images in a batch for feature extraction
    'max_train': within(0, '[0, inf)'),  # use at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images, 0: all
}

RETRIEVAL = {
    'max_values': within(0, '[0, inf)'),  # feature maps are average-pooled to at most this many, 0: their mean
    'batch_size': positive(64),  # images in a batch, whose rankings are held
    'max_train': within(0, '[0, inf)'),  # rank at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images as queries, 0: all
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

VOC_CLASSIFICATION = {
    'preset': choice('philkr', 'deepcluster'),  # the protocol, of voc/classification/stage.py
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

VOC_SVM = {
    'layers': free(subset(('conv5',), of=LAYERS)),  # a set of support vector machines for each
    'parts': free(subset(PARTS, of=PARTS)),  # machines of all training images; of a few with each class
    'view': choice('whole', 'centre'),  # the image squashed, or its centre at data.size (transfer/voc/svm_task.py)
    'crop_size': positive(224),  # side of what the trunk sees, pixels
    'geometry': choice('torch', 'same', 'caffe', 'centred'),  # what stands around the trunk's maps
    'costs': each((0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0), '(0, inf)'),  # C, to pick from
    'iterations': positive(2000),  # of the solver, at most
    'shots': each((1, 2, 4, 8, 16, 32, 64, 96), '[1, inf)'),  # images with a class, in low-shot training
    'draws': positive(5),  # of these images
    'batch_size': positive(64),  # images in a batch for feature extraction
}

VOC_DETECTION = {
    'preset': choice('single_scale', 'multi_scale'),  # the protocol, of voc/detection/scales.py
    'frozen': within(1, '[0, 5]'),  # convolutional layers that do not learn, from conv1 on
    'steps': within(0, '[0, inf)'),  # updates, 0: the preset's; the rate drops in proportion
    'learning_rate': within(0.0, '[0, inf)'),  # at the first update, 0: the preset's
    'batch_size': positive(2),  # images in a global batch
    'regions': positive(64),  # of an image, that a step learns from, at most
    'boxes': positive(2000),  # proposals of an image, in a step at most, and in a test at a time: there all are seen
    'scales': each((0,), '[0, inf)'),  # lengths of an image's shorter side, pixels, (0,): the preset's
    'test_scales': each((0,), '[0, inf)'),  # the same in tests, (0,): those of training
    'longest': within(0, '[0, inf)'),  # what its longer side may be, pixels, 0: the preset's
    'proposals': named('selective_search'),  # or a file, .mat or .npz, in whose path {split} is the split's name
    'proposal_folder': free(''),  # where selective search keeps what it finds, '': in the work directory
    'hidden': positive(4096),  # units of fc6 and fc7
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after fc6 and fc7
    'rescale': choice('new', 'none'),  # initialise fc6 and fc7 by the data
}

SEGMENTATION_PROBE = {
    'layers': subset(LAYERS, of=LAYERS),  # a linear classifier of pixels for each
    'size': positive(224),  # side of the squares that images become, pixels
    'pixels': positive(64),  # of each training image, that the classifiers learn from
    'penalties': each((1e-4, 1e-3, 1e-2, 1e-1), '[0, inf)'),  # weights of the L2 penalty, to pick from
    'held_out': within(0.1, '(0, 1)'),  # part of the training images that picks the penalty
    'iterations': positive(100),  # of L-BFGS
    'batch_size': positive(32),  # images in a batch for feature extraction
    'max_train': within(0, '[0, inf)'),  # use at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images, 0: all
    'mask_key': named('segmentation_mask'),  # the feature of a tfds data set that the masks are
}

VOC_SEGMENTATION = {
    'preset': choice('fcn', 'zhang'),  # the protocol, of voc/segmentation/stage.py
    'steps': within(0, '[0, inf)'),  # updates, 0: the preset's; the rate drops in proportion
    'learning_rate': within(0.0, '[0, inf)'),  # at the first update, 0: the preset's
    'batch_size': positive(20),  # images whose gradients are averaged for an update; accumulate=20: one at a time
    'sbd': '',  # benchmark_RELEASE, the folder of SBD, whose images are learned from, too
    'sbd_list': named('train'),  # which of them: train, val, another list there, or the path of a .txt
    'voc': True,  # learn from data.probe_train; False: from SBD alone
    'hidden': positive(4096),  # channels of fc6 and fc7
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after fc6 and fc7
    'rescale': choice('new', 'none'),  # initialise fc6 and fc7 by the data
}

KEYS = {
    'knn': KNN,
    'layerwise': LAYERWISE,
    'retrieval': RETRIEVAL,
    'segmentation_probe': SEGMENTATION_PROBE,
    'voc_classification': VOC_CLASSIFICATION,
    'voc_detection': VOC_DETECTION,
    'voc_segmentation': VOC_SEGMENTATION,
    'voc_svm': VOC_SVM,
}
