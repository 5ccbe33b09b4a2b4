"""Declares the keys of the transfer tasks, one section per task; configs/default.py includes them."""

from artifacts_jax.configs.declarations import choice, free, numbers, positive, subset, text, within

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
PARTS = ('all', 'low_shot')  # of the task voc_svm
GEOMETRIES = ('same', 'caffe', 'torch', 'centred')  # padding conventions of models/alexnet.py

KNN = {
    'neighbours': numbers((20, 200), '[1, inf)'),  # values of k, in one pass; capped at the training images
    'temperature': positive(0.1),  # neighbours vote with the weight exp(cosine / temperature)
    'max_values': within(0, '[0, inf)'),  # maps are average-pooled to at most this many values, 0: to the mean
    'batch_size': positive(256),  # images in a batch for feature extraction
    'max_train': within(0, '[0, inf)'),  # use at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images, 0: all
}

RETRIEVAL = {
    'max_values': within(0, '[0, inf)'),  # maps are average-pooled to at most this many values, 0: to the mean
    'batch_size': positive(64),  # images in a batch; the rankings of a batch are held in memory
    'max_train': within(0, '[0, inf)'),  # rank at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images as queries, 0: all
}

LAYERWISE = {
    'preset': choice('zhang2016', 'fair', 'vissl', 'deepcluster', 'asano'),  # the protocol (layerwise/presets.py)
    'rate_factors': numbers((1.0,), '(0, inf)'),  # factors on the learning rate; one classifier per factor
    'batch_size': within(0, '[0, inf)'),  # images in a global batch, 0: as in the preset
    'epochs': within(0, '[0, inf)'),  # epochs on data.probe_train, 0: as in the preset; rate drops scale with it
    'crop_size': within(0, '[0, inf)'),  # side of the crops, pixels of images of data.size; 0: as in the preset
    'geometry': choice('preset', *GEOMETRIES),  # padding of the trunk's layers; 'same': as in pretraining
    'ten_crop': free(False),  # also test with ten crops
}

VOC_CLASSIFICATION = {
    'preset': choice('philkr', 'deepcluster'),  # the protocol, see transfer/voc/classification/stage.py
    'train': choice('all', 'fc6', 'fc8'),  # the trained layers: all, or all from this layer on
    'steps': within(0, '[0, inf)'),  # updates, 0: as in the preset; halvings of the rate scale with it
    'learning_rate': within(0.0, '[0, inf)'),  # initial learning rate, 0: as in the preset
    'batch_size': positive(16),  # images in a global batch
    'crop_size': positive(227),  # side of the crops, pixels
    'geometry': choice('caffe', 'same', 'torch', 'centred'),  # padding of the trunk's layers
    'hidden': positive(4096),  # units of fc6 and fc7
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after fc6 and fc7
    'rescale': choice('new', 'all', 'none'),  # data-dependent initialisation of fc6, fc7; 'all': and balance all layers
}

VOC_SVM = {
    'layers': free(subset(('conv5',), of=LAYERS)),  # layers whose features are classified by SVMs
    'parts': free(subset(PARTS, of=PARTS)),  # SVMs on all training images; SVMs on a few images per class
    'view': choice('whole', 'centre'),  # the image squashed to a square, or its centre crop (voc/svm_task.py)
    'crop_size': positive(224),  # side of the network inputs, pixels
    'geometry': choice('torch', 'same', 'caffe', 'centred'),  # padding of the trunk's layers
    'costs': numbers((0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0), '(0, inf)'),  # candidates for C
    'iterations': positive(2000),  # maximum number of iterations of the solver
    'shots': numbers((1, 2, 4, 8, 16, 32, 64, 96), '[1, inf)'),  # positive images per class in low-shot training
    'draws': positive(5),  # random samples of these images
    'batch_size': positive(64),  # images in a batch for feature extraction
}

VOC_DETECTION = {
    'preset': choice('single_scale', 'multi_scale'),  # the protocol, see transfer/voc/detection/scales.py
    'frozen': within(1, '[0, 5]'),  # number of frozen convolutional layers, from conv1 on
    'steps': within(0, '[0, inf)'),  # updates, 0: as in the preset; rate drops scale with it
    'learning_rate': within(0.0, '[0, inf)'),  # initial learning rate, 0: as in the preset
    'batch_size': positive(2),  # images in a global batch
    'regions': positive(64),  # maximum number of sampled regions per image in a training step
    'boxes': positive(2000),  # proposals per image: maximum in a training step; chunk size in tests, which use all
    'scales': numbers((0,), '[0, inf)'),  # lengths of the shorter side of images, pixels, (0,): as in the preset
    'test_scales': numbers((0,), '[0, inf)'),  # as `scales`, for tests; (0,): as in training
    'longest': within(0, '[0, inf)'),  # maximum length of the longer side of images, pixels, 0: as in the preset
    'proposals': text('selective_search'),  # selective search, or a .mat or .npz file; {split} in its path: the split
    'proposal_folder': free(''),  # folder for the proposals of selective search, '': in the work directory
    'hidden': positive(4096),  # units of fc6 and fc7
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after fc6 and fc7
    'rescale': choice('new', 'none'),  # data-dependent initialisation of fc6 and fc7
}

SEGMENTATION_PROBE = {
    'layers': subset(LAYERS, of=LAYERS),  # layers, with one linear pixel classifier each
    'size': positive(224),  # images are resized to squares of this side, pixels
    'pixels': positive(64),  # sampled training pixels per image
    'penalties': numbers((1e-4, 1e-3, 1e-2, 1e-1), '[0, inf)'),  # candidates for the weight of the L2 penalty
    'held_out': within(0.1, '(0, 1)'),  # fraction of the training images held out to pick the penalty
    'iterations': positive(100),  # maximum number of L-BFGS iterations
    'batch_size': positive(32),  # images in a batch for feature extraction
    'max_train': within(0, '[0, inf)'),  # use at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images, 0: all
    'mask_key': text('segmentation_mask'),  # the feature of a tfds data set that contains the masks
}

VOC_SEGMENTATION = {
    'preset': choice('fcn', 'zhang'),  # the protocol, see transfer/voc/segmentation/stage.py
    'steps': within(0, '[0, inf)'),  # updates, 0: as in the preset; rate drops scale with it
    'learning_rate': within(0.0, '[0, inf)'),  # initial learning rate, 0: as in the preset
    'batch_size': positive(20),  # images in a batch; with accumulate=20, one image per microbatch
    'sbd': '',  # benchmark_RELEASE, the folder of SBD, whose images are added for training
    'sbd_list': text('train'),  # list of SBD images: train, val, another list of SBD, or the path of a .txt
    'voc': True,  # train on data.probe_train; False: on SBD only
    'hidden': positive(4096),  # channels of fc6 and fc7
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after fc6 and fc7
    'rescale': choice('new', 'none'),  # data-dependent initialisation of fc6 and fc7
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
