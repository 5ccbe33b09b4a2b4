"""Declares every configuration key once: its default, its accepted values, and a comment with its meaning.

The defaults are the published STL-10 recipe. To run it:

    python -m artifacts_jax.main --config=configs/default.py --workdir=runs/default

Any key can be overridden on the command line: `--config.artifacts.drop_rate=0.5`. The other files are short overrides
of this file.
"""

from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax.configs import declarations, tasks, variants
from artifacts_jax.configs.declarations import choice, free, numbers, positive, span, subset, text, within

STAGES = ('autoencoder', 'artifacts', 'probe', 'stl10', *tasks.KEYS)
PROTOCOLS = ('linear', 'finetune')  # of stl10

DATA = {
    'name': text('photographs'),  # a folder of images, a tfds data set, a folder of SPLIT.npz, or one .npz file
    'data_dir': free(''),  # folder of prepared tfds data sets; '': the default of tfds, ~/tensorflow_datasets
    'image_key': text('image'),  # the feature of a tfds data set that contains the images
    'label_key': text('label'),  # the feature that contains the class labels; without this feature there are no labels
    'train': text('train'),  # training split of the stages autoencoder and artifacts; labels are not used
    'probe_train': text('train'),  # labelled training split of the probe and of the transfer tasks
    'test': text('test'),  # labelled split for all held-out metrics and figures
    'size': positive(96),  # side of the stored square images, pixels; images are resized and centre-cropped to it
    'loading': free(choice('auto', 'memory', 'stream')),  # decode all once, or when needed; 'auto': by memory_limit_gb
    'memory_limit_gb': positive(8.0),  # 'auto' streams a split if its decoded images are larger than this, in 1e9 bytes
    'workers': free(within(0, '[0, 256]')),  # threads that read and decode images, 0: one per CPU
}

AUGMENT = {
    'crop_area': span((1 / 3, 1.0), '(0, 1]'),  # range of the area of training crops, as a fraction of the image
    'crop_aspect': span((3 / 4, 4 / 3), '(0, inf)'),  # range of width / height of training crops
    'flip': True,  # flip half of the training images horizontally
    'brightness': within(32 / 255, '[0, 1]'),  # largest change of brightness, for images in [0, 1]
    'saturation': span((0.5, 1.5), '[0, inf)'),  # range of the saturation factor
    'test_crop': within(0.85, '(0, 1]'),  # side of the centre crop for evaluation, as a fraction of the image
}

MODEL = {
    'image_size': positive(96),  # side of the network inputs, pixels
    'encoder_widths': numbers((32, 64, 128, 256, 512), '[1, inf)'),  # encoder channels; all but the first halve the map
    'encoder_kernel': positive(2),  # kernel size of the encoder's layers that halve the size
    'upsampling': choice('half_pixel', 'legacy'),  # bilinear upsampling of the decoder; 'legacy': as in TensorFlow 1
    'widths': numbers((96, 256, 384, 384, 256), '[1, inf)'),  # channels of the discriminator's conv1..conv5
    'kernels': numbers((11, 5, 3, 3, 3), '[1, inf)'),  # kernel sizes of conv1..conv5
    'conv1_stride': positive(4),  # stride of conv1
    'groups': positive(2),  # groups of conv2, conv4 and conv5
    'hidden': positive(4096),  # units of the discriminator's fully connected layer
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after that layer
}

AUTOENCODER = {
    'pretrained': '',  # an export with encoder and decoder, used instead of training this stage
    'steps': positive(195_250),  # updates of the autoencoder stage
    'learning_rate': positive(3e-4),  # Adam's learning rate at the first step
    'pixel_weight': within(30.0, '[0, inf)'),  # weight of the mean squared error
}

ARTIFACTS = {
    'pretrained': '',  # an export with a trunk, evaluated instead of training this stage
    'steps': positive(195_250),  # updates of the artifacts stage
    'learning_rate': positive(3e-4),  # Adam's learning rate at the first step, for both networks
    'updates': choice('alternate', 'simultaneous'),  # 'alternate': first the discriminator, then the generator
    'drop_rate': within(0.7, '[0, 1]'),  # theta, the probability that an entry of the feature grid is dropped
    'filter_size': within(3, '[0, inf)'),  # size of the mean filter for dropped entries; 0: mean of the whole grid
    'repair_layers': within(-1, '[-1, inf)'),  # repair layers, one before each of the first decoder layers; -1: all
    'feed_mask': True,  # whether the mask is an input of the repair layers
    'gated': True,  # whether the repair layers change dropped positions only
    'rounds': positive(1),  # number of times that an example is damaged and repaired
    'real': choice('decoded', 'input'),  # the real example: 'decoded' by the autoencoder (like the fake) or the 'input'
    'generator': choice('repair', 'gan'),  # source of the fakes: repaired damage, or a new decoder of noise
    'generator_objective': choice('swapped', 'reference'),  # swapped labels; 'reference' adds the discriminator's loss
    'history': within(0, '[0, inf)'),  # earlier fakes in a buffer, half of all fakes; k * batch_size / 2, or 0: none
    'mask_weight': within(0.1, '[0, inf)'),  # weight of the discriminator's mask loss
    'pixel_weight': within(30.0, '[0, inf)'),  # weight of the generator's squared error over kept pixels
}

OPTIM = {
    'b1': within(0.5, '[0, 1)'),  # Adam's decay of the first moment
    'b2': within(0.999, '[0, 1)'),  # Adam's decay of the second moment
    'epsilon': positive(1e-5),  # Adam's epsilon
    'epsilon_hat': False,  # add epsilon before bias correction, as in TensorFlow 1
    'decay_fraction': within(0.9, '[0, 1]'),  # fraction of the steps with a falling learning rate; then constant
    'final_fraction': within(0.01, '[0, 1]'),  # final learning rate, as a fraction of the first
    'bias_gradient_scale': within(2.0, '[0, inf)'),  # factor on the gradients of biases
    'l2': within(5e-5, '[0, inf)'),  # weight of 0.5 * |w|^2 over convolution and fully connected weights
    'ema_decay': within(0.0, '[0, 1)'),  # decay of the moving average (EMA) of the weights, 0: no average
    'use_ema': False,  # whether later stages, the probe and the export use the moving average
}

PROBE = {
    'max_values': positive(9216),  # feature maps are average-pooled to at most this many values
    'solver': choice('auto', 'lbfgs', 'sgd'),  # features in memory, or recomputed; 'auto': by data.memory_limit_gb
    'penalties': numbers((1e-4, 1e-3, 1e-2, 1e-1), '[0, inf)'),  # candidates for the weight of the L2 penalty
    'held_out': within(0.1, '(0, 1)'),  # fraction of the training split held out to pick the penalty
    'iterations': positive(100),  # maximum number of L-BFGS iterations
    'epochs': positive(30),  # epochs of the SGD solver
    'learning_rate': positive(0.1),  # initial learning rate of the SGD solver; cosine decay to 0
    'batch_size': positive(256),  # images in a batch for feature extraction and the SGD solver
    'max_train': within(0, '[0, inf)'),  # use at most this many training images, 0: all
    'max_test': within(0, '[0, inf)'),  # use at most this many test images, 0: all
}

# The published transfer protocol of STL-10.
STL10 = {
    'protocols': free(subset(PROTOCOLS, of=PROTOCOLS)),  # a linear layer on a frozen trunk; fine-tuning
    'epochs': positive(400),  # passes over data.probe_train; incomplete batches are dropped
    'batch_size': positive(128),  # images in a global batch, for training and evaluation
    'learning_rate': positive(1e-3),  # Adam's learning rate at the first step
    'hidden': positive(4096),  # units of each hidden layer of the fine-tuned classifier
    'dropout': within(0.5, '[0, 1)'),  # rate of dropout after each hidden layer
    'batch_norm': choice('frozen', 'reference'),  # of conv5 in 'linear'; 'reference': batch statistics
    'folds': free(''),  # path of fold_indices.txt of STL-10; '': train on all images only
    'num_folds': within(10, '[2, inf)'),  # number of folds, one per line of that file
    'fold_size': positive(1000),  # images in a fold
    'fold_protocol': free(choice('official', 'held_out')),  # 'official': train on a fold; 'held_out': on the others
}

MONITOR = {
    'bank': positive(2000),  # labelled images of the k-nearest-neighbour classifier
    'queries': positive(1000),  # held-out images for accuracy, spread and rank
    'neighbours': positive(20),  # k
}

KEYS = {
    'stages': free(subset(('autoencoder', 'artifacts', 'probe'), of=STAGES)),  # stages to run; the order is fixed
    'pretrained': free(''),  # an export from which tasks start instead of the stage artifacts; or 'random'
    'force': free(False),  # continue in a work directory with another configuration
    'seed': within(0, '[0, inf)'),  # every random number is a function of (seed, stage, step, example)
    'parallel': free(choice('jit', 'pmap')),  # how steps are distributed over devices: jit with a mesh, or pmap
    'dtype': choice('float32', 'bfloat16'),  # type of the networks' computation; parameters are float32
    'convolutions': free(choice('auto', 'direct', 'products')),  # XLA's, or matrix products; 'auto': 'products' on CPU
    'batch_size': positive(128),  # images in a global batch, over all devices and hosts
    'accumulate': positive(1),  # microbatches per batch, for less memory; each has its own batch statistics
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
    'log_every': free(positive(100)),  # steps between logged metrics
    'eval_every': free(positive(5000)),  # steps between held-out evaluations
    'figure_every': free(positive(20_000)),  # steps between figures
    'checkpoint_every': free(positive(5000)),  # steps between checkpoints
    'keep_checkpoints': free(positive(3)),  # number of newest checkpoints to keep per stage
    'eval_examples': within(1000, '[0, inf)'),  # held-out images of an evaluation during training, 0: all
}

RETIRED = ('data.shuffle_buffer',)  # keys of earlier versions, ignored in their files

configuration.declare(dict(declarations.flatten(KEYS)), RETIRED)


def get_config(variant: str = '') -> ConfigDict:
    """Returns the default configuration, locked: only declared keys can be set; `variant` as for variants.apply."""
    return variants.apply(declarations.build(KEYS), variant)
