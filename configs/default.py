"""Every configuration key, each declared once; the other configs are short overrides of this one.

The values are the published STL-10 recipe. Run it as

    python -m artifacts_jax.main --config=configs/default.py --workdir=runs/default

and override any key on the command line: `--config.artifacts.drop_rate=0.5`.
"""

from ml_collections import ConfigDict

from configs import variants


def get_config(variant: str = '') -> ConfigDict:
    """Returns the default configuration, locked: only declared keys can be set; `variant` as in variants.py."""
    config = ConfigDict()

    config.stages = ('autoencoder', 'artifacts', 'probe')  # which stages to run, in this order; last, 'transfer'
    config.force = False  # go on in a work directory that was made with other values of these keys
    config.seed = 0  # every random number is a function of (seed, stage, step, example)
    config.parallel = 'jit'  # how steps are mapped over devices: 'jit' (one mesh) or 'pmap'
    config.dtype = 'float32'  # compute type of the networks, 'float32' or 'bfloat16'; parameters stay float32
    config.convolutions = 'auto'  # 'direct', 'products' (of matrices: faster on CPU), or 'auto': products on CPU
    config.batch_size = 128  # images in a global batch, over all devices and hosts
    config.accumulate = 1  # parts of a batch whose gradients are added up, for less memory; each has its own statistics

    config.data = data = ConfigDict()
    data.name = 'photographs'  # a tfds data set, or a folder with one sub-folder of images for each split and class
    data.data_dir = ''  # where tfds looks for prepared data; '' is its default, ~/tensorflow_datasets
    data.train = 'train'  # split that the autoencoder and the artifacts stage learn from; labels unused
    data.probe_train = 'train'  # labelled split that the linear classifiers learn from
    data.test = 'test'  # labelled split for every held-out figure
    data.size = 96  # side of the stored square images, pixels; others are resized and centrally cropped to it
    data.loading = 'auto'  # 'memory' (decoded once), 'stream' (from disk), or 'auto' by memory_limit_gb
    data.memory_limit_gb = 8.0  # 'auto' streams a split whose decoded images are larger than this, 1e9 bytes
    data.shuffle_buffer = 16384  # images that a streamed epoch is shuffled within

    config.augment = augment = ConfigDict()
    augment.crop_area = (1 / 3, 1.0)  # range of a training crop's area, as a fraction of the image's
    augment.crop_aspect = (3 / 4, 4 / 3)  # range of a training crop's width / height
    augment.flip = True  # mirror half of the training images
    augment.brightness = 32 / 255  # largest shift of brightness, images in [0, 1]
    augment.saturation = (0.5, 1.5)  # range of the factor on saturation
    augment.test_crop = 0.85  # side of the central crop for evaluation, as a fraction of the image's

    config.model = model = ConfigDict()
    model.image_size = 96  # side of the images that the networks see, pixels
    model.encoder_widths = (32, 64, 128, 256, 512)  # channels of the encoder's layers; all but the first halve the size
    model.encoder_kernel = 2  # kernel size of the encoder's layers that halve the size
    model.upsampling = 'half_pixel'  # the decoder's bilinear doubling: 'half_pixel', or 'legacy' (TensorFlow 1's)
    model.widths = (96, 256, 384, 384, 256)  # channels of the discriminator's conv1..conv5
    model.kernels = (11, 5, 3, 3, 3)  # kernel sizes of conv1..conv5
    model.conv1_stride = 4  # stride of conv1
    model.groups = 2  # groups of conv2, conv4 and conv5
    model.hidden = 4096  # units of the discriminator's fully connected layer
    model.dropout = 0.5  # rate of dropout after that layer

    config.autoencoder = autoencoder = ConfigDict()
    autoencoder.pretrained = ''  # an export whose encoder and decoder are taken instead of trained
    autoencoder.steps = 195_250  # updates of the autoencoder stage
    autoencoder.learning_rate = 3e-4  # Adam's learning rate at the first step
    autoencoder.pixel_weight = 30.0  # weight of the mean squared error

    config.artifacts = artifacts = ConfigDict()
    artifacts.pretrained = ''  # an export whose trunk is probed and transferred instead of a trained one
    artifacts.steps = 195_250  # updates of the artifacts stage
    artifacts.learning_rate = 3e-4  # Adam's learning rate at the first step, for both networks
    artifacts.updates = 'alternate'  # 'alternate' (generator against the updated discriminator) or 'simultaneous'
    artifacts.drop_rate = 0.7  # theta, the probability that an entry of the feature grid is dropped
    artifacts.filter_size = 3  # side of the uniform filter that replaces dropped entries; 0 averages the whole grid
    artifacts.repair_layers = -1  # layers of the decoder, from the first, that a repair layer precedes; -1: all
    artifacts.feed_mask = True  # whether the repair layers see the mask
    artifacts.gated = True  # whether the repair layers change dropped positions only
    artifacts.rounds = 1  # how often an example is damaged and repaired
    artifacts.real = 'decoded'  # the real example: 'decoded' (through the autoencoder, as the fake) or 'input'
    artifacts.generator = 'repair'  # what makes the fake: 'repair' (of damage), or 'gan' (a new decoder, from noise)
    artifacts.generator_objective = 'swapped'  # class loss with labels swapped; 'reference' adds the discriminator's
    artifacts.history = 0  # earlier fakes kept to make half of the discriminator's; 0 or a multiple of half a batch
    artifacts.mask_weight = 0.1  # weight of the discriminator's mask loss
    artifacts.pixel_weight = 30.0  # weight of the generator's squared error over kept pixels

    config.optim = optim = ConfigDict()
    optim.b1 = 0.5  # Adam's decay of the first moment
    optim.b2 = 0.999  # Adam's decay of the second moment
    optim.epsilon = 1e-5  # Adam's epsilon
    optim.epsilon_hat = False  # add epsilon before the second moment is corrected for its start, as TensorFlow 1 does
    optim.decay_fraction = 0.9  # fraction of the steps over which the learning rate falls linearly; then it is constant
    optim.final_fraction = 0.01  # the last learning rate, as a fraction of the first
    optim.bias_gradient_scale = 2.0  # factor on the gradients of biases
    optim.l2 = 5e-5  # weight of 0.5 * |w|^2 over convolution and fully connected weights
    optim.ema_decay = 0.0  # decay of an exponential moving average of the trained weights, 0: none is kept
    optim.use_ema = False  # whether later stages, the probe and the export use the moving average

    config.probe = probe = ConfigDict()
    probe.max_values = 9216  # feature maps are average-pooled to at most this many values
    probe.solver = 'auto'  # 'lbfgs' (features in memory), 'sgd' (recomputed), or 'auto' by data.memory_limit_gb
    probe.penalties = (1e-4, 1e-3, 1e-2, 1e-1)  # weights of the L2 penalty to pick from on the held-out part
    probe.held_out = 0.1  # part of the training split held out to pick the penalty
    probe.iterations = 100  # L-BFGS iterations
    probe.epochs = 30  # passes over the training split for the SGD solver
    probe.learning_rate = 0.1  # first learning rate of the SGD solver; falls by cosine to 0
    probe.batch_size = 256  # images in a batch for feature extraction and the SGD solver
    probe.max_train = 0  # use at most this many training images, 0: all
    probe.max_test = 0  # use at most this many test images, 0: all

    config.transfer = transfer = ConfigDict()  # the published STL-10 transfer: stage 'transfer', after 'artifacts'
    transfer.protocols = ('linear', 'finetune')  # 'linear' (one layer on a frozen trunk), 'finetune' (all is trained)
    transfer.epochs = 400  # passes over the training images, data.probe_train, in whole batches
    transfer.batch_size = 128  # images in a global batch, for training and evaluation
    transfer.learning_rate = 1e-3  # Adam's learning rate at the first step
    transfer.hidden = 4096  # units of each hidden layer of the fine-tuned classifier
    transfer.dropout = 0.5  # rate of dropout after each hidden layer
    transfer.batch_norm = 'frozen'  # conv5's in 'linear': 'frozen', or 'reference' (uses the batch's, updates averages)
    transfer.folds = ''  # the data set's fold_indices.txt; '' trains on all images only
    transfer.num_folds = 10  # folds in that file, one a line
    transfer.fold_size = 1000  # images in a fold
    transfer.fold_protocol = 'official'  # train on a fold and test on data.test, or 'held_out': train on the others

    config.monitor = monitor = ConfigDict()
    monitor.bank = 2000  # labelled images in the memory of the k-nearest-neighbour classifier
    monitor.queries = 1000  # held-out images that are classified, and measured for spread and rank
    monitor.neighbours = 20  # k

    config.log_every = 100  # steps between lines of metrics
    config.eval_every = 5000  # steps between held-out evaluations
    config.figure_every = 20_000  # steps between figures
    config.checkpoint_every = 5000  # steps between checkpoints
    config.keep_checkpoints = 3  # newest checkpoints kept for each stage
    config.eval_examples = 1000  # held-out images in an evaluation during training, 0: all

    return variants.apply(config.lock(), variant)
