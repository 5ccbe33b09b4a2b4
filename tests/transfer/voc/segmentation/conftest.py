"""Fixtures of the segmentation tests: a small VOC folder, and small padded sizes."""

import pytest

from artifacts_jax.transfer.voc.segmentation import batches, stage
from tests.transfer.voc.segmentation import trees


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    year = tmp_path_factory.mktemp('voc') / 'VOC2012'
    trees.voc(year, train=(0, 1, 2, 3), val=(4, 5))
    return year


@pytest.fixture
def little(monkeypatch):
    monkeypatch.setattr(stage, 'INIT_IMAGES', 4)
    monkeypatch.setattr(batches, 'SIZE_MULTIPLE', 24)
