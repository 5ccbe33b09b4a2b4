"""Prepares a tfds data set: downloads it, or reads archives from DIR/downloads/manual, and writes array_record files.

python -m artifacts_jax.prepare stl10
python -m artifacts_jax.prepare imagenet2012 --data_dir=DIR

A data set that exists as TFRecord files is converted without a download. The result is a normal tfds data set, which
other programs can read too. Put these archives, not unpacked, into DIR/downloads/manual yourself:

    imagenet2012, imagenet2012_subset/1pct, .../10pct    ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar

Other data sets, such as cifar10, stl10, voc/2007, voc/2012 and places365_small, are downloaded. Without internet
access, put their archives into DIR/downloads/manual, with unchanged names.
"""

from absl import flags

from artifacts_jax import command
from artifacts_jax.data import preparation


def main(name: str):
    """Prepares a data set and prints the result.

    Args:
      name: the tfds name of the data set, from the command line.
    """
    print(preparation.prepare(name, flags.FLAGS.data_dir, flags.FLAGS.file_format))


def declare_flags() -> None:
    """Declares the flags; not at import, because other commands declare flags with the same names."""
    flags.DEFINE_string('data_dir', '', 'folder of the data sets; default: ~/tensorflow_datasets')
    flags.DEFINE_enum('file_format', 'array_record', list(preparation.FORMATS), 'format of the files')


if __name__ == '__main__':
    declare_flags()
    command.run(main, arguments=['NAME'])
