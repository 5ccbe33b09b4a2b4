"""Every configuration key, each declared once: its default, what else it may be, and in a comment what it means.

The defaults are the published STL-10 recipe. Run it as

    python -m artifacts_jax.main --config=configs/default.py --workdir=runs/default

and override any key on the command line: `--config.artifacts.drop_rate=0.5`. The other configs are short overrides of
this one.
"""

from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax.configs import declarations, tasks, variants
from artifacts_jax.configs.declarations import choice, each, free, named, positive, span, subset, within

STAGES = ('autoencoder', 'artifacts', 'probe', 'stl10', *tasks.KEYS)
PROTOCOLS = ('linear', 'finetune')  # of stl10

DATA = {
    'name': named('photographs'),  # a folder of images, a tfds data set, or arrays: SPLIT.npz, or one .npz
    'data_dir': free(''),  # where tfds looks for prepared data; '' is its default, ~/tensorflow_datasets
    'image_key': named('image'),  # the feature of a tfds data set that the images are
    'label_key': named('label'),  # and that their classes are; without one there are no labels
    'train': named('train'),  # split that the autoencoder and the artifacts stage learn from; labels unused
    'probe_train': named('train'),  # labelled split that the linear classifiers learn from
    'test': named('test'),  # labelled split for every held-out figure
    'size': positive(96),  # side of the stored square images, pixels; others are resized and centrally cropped to it
    'loading': free(choice('auto', 'memory', 'stream')),  # decoded once, or as needed; 'auto': by memory_limit_gb
    'memory_limit_gb': positive(8.0),  # 'auto' streams a split whose decoded images are larger than this, 1e9 bytes
    'workers': free(within(0, '[0, 256]')),  # threads that read and decode, 0: as many as there are CPUs
}

AUGMENT = {
    'crop_area': span((1 / 3, 1.0), '(0, 1]'),  # range of a training crop's area, as a fraction of the image's
    'crop_aspect': span((3 / 4, 4 / 3), '(0, inf)'),  # range of a training crop's width / height
    'flip': True,  # mirror half of the training images
    'brightness': within(32 / 255, '[0, 1]'),  # largest shift of brightness, images in [0, 1]
    'saturation': span((0.5, 1.5), '[0, inf)'),  # range of the factor on saturation
    'test_crop': within(0.85, '(0, 1]'),  # side of the central crop for evaluation, as a fraction of the image's
}

MODEL = {
    'image_size': positive(96),  # side of the images that the networks see, pixels
    'encoder_widths': each((32, 64, 128, 256, 512), '[1, inf)'),  # the encoder's channels; each but the first halves
    'encoder_kernel': positive(2),  # kernel size of the encoder's layers that halve the size
    'upsampling': choice('half_pixel', 'legacy'),  # the decoder's bilinear doubling; 'legacy' is TensorFlow 1's
    'widths': each((96, 256, 384, 384, 256), '[1, inf)'),  # channels of the discriminator's conv1..conv5
    'kernels': each((11, 5, 3, 3, 3), '[1, inf)'),  # kernel sizes of conv1..conv5
    'conv1_stride': positive(4),  # stride of conv1
    'groups': positive(2),  # groups of conv2, conv4 and conv5
    'hidden': positive(4096),  # units of the discriminator's fully connected layer
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after that layer
}

AUTOENCODER = {
    'pretrained': '',  # an export whose encoder and decoder are taken instead of trained
    'steps': positive(195_250),  # updates of the autoencoder stage
    'learning_rate': positive(3e-4),  # Adam's learning rate at the first step
    'pixel_weight': within(30.0, '[0, inf)'),  # weight of the mean squared error
}

ARTIFACTS = {
    'pretrained': '',  # an export whose trunk is probed and transferred instead of a trained one
    'steps': positive(195_250),  # updates of the artifacts stage
    'learning_rate': positive(3e-4),  # Adam's learning rate at the first step, for both networks
    'updates': choice('alternate', 'simultaneous'),  # whether the generator meets the updated discriminator
    'drop_rate': within(0.7, '[0, 1]'),  # theta, the probability that an entry of the feature grid is dropped
    'filter_size': within(3, '[0, inf)'),  # side of the mean that replaces dropped entries; 0: of the whole grid
    'repair_layers': within(-1, '[-1, inf)'),  # the decoder's first layers that a repair layer precedes; -1: all
    'feed_mask': True,  # whether the repair layers see the mask
    'gated': True,  # whether the repair layers change dropped positions only
    'rounds': positive(1),  # how often an example is damaged and repaired
    'real': choice('decoded', 'input'),  # the real example: 'decoded' (through the autoencoder, as the fake) or 'input'
    'generator': choice('repair', 'gan'),  # what makes the fake: repair of damage, or a new decoder, of noise
    'generator_objective': choice('swapped', 'reference'),  # swapped labels; 'reference' adds the discriminator's loss
    'history': within(0, '[0, inf)'),  # earlier fakes kept, to be half of the fakes; 0 or a multiple of half a batch
    'mask_weight': within(0.1, '[0, inf)'),  # weight of the discriminator's mask loss
    'pixel_weight': within(30.0, '[0, inf)'),  # weight of the generator's squared error over kept pixels
}

OPTIM = {
    'b1': within(0.5, '[0, 1)'),  # Adam's decay of the first moment
    'b2': within(0.999, '[0, 1)'),  # Adam's decay of the second moment
    'epsilon': positive(1e-5),  # Adam's epsilon
    'epsilon_hat': False,  # add epsilon before the second moment is corrected for its start, as TensorFlow 1 does
    'decay_fraction': within(0.9, '[0, 1]'),  # part of the steps in which the learning rate falls; then it is constant
    'final_fraction': within(0.01, '[0, 1]'),  # the last learning rate, as a fraction of the first
    'bias_gradient_scale': within(2.0, '[0, inf)'),  # factor on the gradients of biases
    'l2': within(5e-5, '[0, inf)'),  # weight of 0.5 * |w|^2 over convolution and fully connected weights
    'ema_decay': within(0.0, '[0, 1)'),  # decay of a moving average of the trained weights, 0: none is kept
    'use_ema': False,  # whether later stages, the probe and the export use the moving average
}

PROBE = {
    'max_values': positive(9216),  # feature maps are average-pooled to at most this many values
    'solver': choice('auto', 'lbfgs', 'sgd'),  # features in memory, or recomputed; 'auto': by data.memory_limit_gb
    'penalties': each((1e-4, 1e-3, 1e-2, 1e-1), '[0, inf)'),  # weights of the L2 penalty, to pick from
    'held_out': within(0.1, '(0, 1)'),  # part of the training split held out to pick the penalty
    'iterations': positive(100),  # L-BFGS iterations
    'epochs': positive(30),  # passes over the training split for the SGD solver
    'learning_rate': positive(0.1),  # first learning rate of the SGD solver; falls by cosine to 0
    'batch_size': positive(256),  # images in a batch for feature extraction and the SGD solver
    'max_train': within(0, '[0, inf)'),  # use at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images, 0: all
}

# The published STL-10 transfer.
STL10 = {
    'protocols': free(subset(PROTOCOLS, of=PROTOCOLS)),  # one layer on a frozen trunk, or all trained
    'epochs': positive(400),  # passes over the training images, data.probe_train, in whole batches
    'batch_size': positive(128),  # images in a global batch, for training and evaluation
    'learning_rate': positive(1e-3),  # Adam's learning rate at the first step
    'hidden': positive(4096),  # units of each hidden layer of the fine-tuned classifier
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after each hidden layer
    'batch_norm': choice('frozen', 'reference'),  # conv5's in 'linear'; 'reference': by the batch, updating averages
    'folds': free(''),  # the data set's fold_indices.txt; '' trains on all images only
    'num_folds': within(10, '[2, inf)'),  # folds in that file, one a line
    'fold_size': positive(1000),  # images in a fold
    'fold_protocol': free(choice('official', 'held_out')),  # train on a fold, test on data.test; or train on the others
}

MONITOR = {
    'bank': positive(2000),  # labelled images in the memory of the k-nearest-neighbour classifier
    'queries': positive(1000),  # held-out images that are classified, and measured for spread and rank
    'neighbours': positive(20),  # k
}

KEYS = {
    'stages': free(subset(('autoencoder', 'artifacts', 'probe'), of=STAGES)),  # which to run, in this order
    'pretrained': free(''),  # an export that tasks start from in place of the artifacts stage, or 'random'
    'force': free(False),  # go on in a work directory that was made with other values of these keys
    'seed': within(0, '[0, inf)'),  # every random number is a function of (seed, stage, step, example)
    'parallel': free(choice('jit', 'pmap')),  # how steps are mapped over devices: over one mesh, or by pmap
    'dtype': choice('float32', 'bfloat16'),  # the networks compute in it; parameters stay float32
    'convolutions': free(choice('auto', 'direct', 'products')),  # XLA's, or products of matrices; 'auto': those on CPU
    'batch_size': positive(128),  # images in a global batch, over all devices and hosts
    'accumulate': positive(1),  # parts that a batch is taken in, for less memory; each has its own statistics
    'data': DATA,
    'augment': AUGMENT,
    'model': MODEL,
    'autoencoder': AUTOENCODER,
    'artifacts': ARTIFACTS,
    'optim': OPTIM,
    'probe': PROBE,
    'stl10': STL10,
    'monitor': MONITOR,
    **tasks.KEYS,
    'log_every': free(positive(100)),  # steps between lines of metrics
    'eval_every': free(positive(5000)),  # steps between held-out evaluations
    'figure_every': free(positive(20_000)),  # steps between figures
    'checkpoint_every': free(positive(5000)),  # steps between checkpoints
    'keep_checkpoints': free(positive(3)),  # newest checkpoints kept for each stage
    'eval_examples': within(1000, '[0, inf)'),  # held-out images in an evaluation during training, 0: all
}

RETIRED = ('data.shuffle_buffer',)  # which runs of earlier versions have

configuration.declare(dict(declarations.flatten(KEYS)), RETIRED)


def get_config(variant: str = '') -> ConfigDict:
    """Returns the default configuration, locked: only declared keys can be set; `variant` as in variants.py."""
    return variants.apply(declarations.build(KEYS), variant)
