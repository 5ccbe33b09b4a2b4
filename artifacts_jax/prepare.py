"""Prepares a tfds data set: downloads it, or takes what lies in DIR/downloads/manual, and writes it as array_record.

python -m artifacts_jax.prepare stl10
python -m artifacts_jax.prepare imagenet2012 --data_dir=DIR

A data set that lies there as TFRecord is converted, without a download. The examples are kept as tfds keeps them, so
that its other users can read them, too. What must be put into DIR/downloads/manual by hand, as it is:

    imagenet2012, imagenet2012_subset/1pct, .../10pct    ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar

Others, such as cifar10, stl10, voc/2007, voc/2012 and places365_small, are downloaded. Where there is no network, put
their archives into DIR/downloads/manual under their own names.
"""

from absl import flags

from artifacts_jax import command
from artifacts_jax.data import preparation


def main(name: str):
    """Prepares the data set of the command line."""
    print(preparation.prepare(name, flags.FLAGS.data_dir, flags.FLAGS.file_format))


def declare_flags() -> None:
    """Declares the command's flags; elsewhere they would clash with those of other programs."""
    flags.DEFINE_string('data_dir', '', 'where data sets lie; by default ~/tensorflow_datasets')
    flags.DEFINE_enum('file_format', 'array_record', list(preparation.FORMATS), 'format of the files')


if __name__ == '__main__':
    declare_flags()
    command.run(main, arguments=['NAME'])
