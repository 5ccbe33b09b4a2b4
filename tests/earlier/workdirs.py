"""The work directories of 28cbb7e.tar.xz, which make.py has made; the fixture `earlier` has a copy."""

from pathlib import Path

from artifacts_jax import config as configuration
from artifacts_jax.configs import default

ARCHIVE = Path(__file__).with_name('28cbb7e.tar.xz')
STAGES = {
    'pretraining': ('autoencoder', 'artifacts', 'probe', 'knn', 'transfer', 'layerwise'),
    'voc2007': ('voc_classification', 'voc_svm', 'voc_detection'),
    'voc2012': ('voc_segmentation', 'segmentation_probe'),
}


def load(workdir, stages=None):
    """Returns the configuration of a work directory in the current directory, with other stages if they are given."""
    config, _ = configuration.load(Path(workdir), default.get_config())
    config = config.copy_and_resolve_references()
    config.stages = stages or config.stages
    return config
