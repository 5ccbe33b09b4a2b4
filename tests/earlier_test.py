"""Work directories that an earlier version made are complete, load and resume: see tests/earlier/make.py."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import figures, pipeline
from artifacts_jax.configs import default
from artifacts_jax.training import loop
from artifacts_jax.transfer.voc.segmentation import canvases
from tests.earlier import make

ARCHIVE = Path(__file__).parent / 'earlier' / '28cbb7e.tar.xz'
WORKDIRS = ('pretraining', 'voc2007', 'voc2012')
TRAINED = {  # {stage: the folders of what it trains}
    'autoencoder': ['pretraining/autoencoder'],
    'artifacts': ['pretraining/artifacts'],
    'transfer': ['pretraining/transfer/linear/all', 'pretraining/transfer/finetune/all'],
    'layerwise': ['pretraining/layerwise/vissl'],
    'voc_classification': ['voc2007/voc_classification/all'],
    'voc_detection': ['voc2007/voc_detection/single_scale_frozen1'],
    'voc_segmentation': ['voc2012/voc_segmentation/fcn'],
}


@pytest.fixture(scope='module')
def original(tmp_path_factory):
    """The folder of the archive's content, which tests copy."""
    folder = tmp_path_factory.mktemp('earlier')
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter='data')
    return folder


@pytest.fixture
def folder(original, tmp_path, monkeypatch):
    """A copy, which is the current directory: all paths in it are relative."""
    shutil.copytree(original, tmp_path / 'earlier')
    monkeypatch.chdir(tmp_path / 'earlier')
    monkeypatch.setattr(canvases, 'STEP', 24)
    return tmp_path / 'earlier'


def load(workdir, stages=None):
    config, _ = configuration.load(Path(workdir), default.get_config())
    config = config.copy_and_resolve_references()
    config.stages = stages or config.stages
    return config


def numbers(text):
    """The numbers of a table, without its words."""
    return re.findall(r'\d+\.\d+', text)


def test_the_archive_is_small():
    assert ARCHIVE.stat().st_size < 1_000_000


@pytest.mark.parametrize('workdir', WORKDIRS)
def test_completed_runs_are_complete_and_print_their_tables(workdir, folder, monkeypatch, capsys):
    monkeypatch.setattr(loop, '_loop', None)  # nothing is trained
    expected = json.loads((folder / workdir / 'results.json').read_text())
    tables = (folder / workdir / 'results.txt').read_text()
    (folder / workdir / 'results.txt').unlink()
    assert pipeline.run(load(workdir), workdir) == expected
    assert numbers((folder / workdir / 'results.txt').read_text()) == numbers(tables)
    assert numbers(tables)[-1] in capsys.readouterr().out


def test_exports_compute_what_they_did(folder):
    with np.load('outputs.npz') as expected:
        found = make.outputs(expected['image'])
        assert found.keys() == {*expected.files} - {'image'}
        for name, x in found.items():
            if name == 'segmenter':
                assert (x == expected[name]).mean() > 0.99  # scores that are equal may be rounded apart
            else:
                np.testing.assert_allclose(x, expected[name], rtol=2e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_figures_are_drawn(folder):
    figures.write(folder / 'pretraining', folder / 'drawn', examples=1, bank=16)
    assert len(list((folder / 'drawn').iterdir())) == 4


def arrays(checkpoint):
    """{path: array} of the variables in a checkpoint, read without this project's code."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(checkpoint / 'variables')
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.slow
@pytest.mark.parametrize('stage', TRAINED)
def test_training_resumes_to_the_same_end(stage, folder, undrawn, capsys):
    trained = [folder / name / 'checkpoints' for name in TRAINED[stage]]
    begun, expected = ([arrays(checkpoints / step) for checkpoints in trained] for step in ('3', '6'))
    for checkpoints in trained:
        shutil.rmtree(checkpoints / '6')
    workdir = TRAINED[stage][0].partition('/')[0]
    results = json.loads((folder / workdir / 'results.json').read_text())
    results.pop(stage, None)
    (folder / workdir / 'results.json').write_text(json.dumps(results))
    config = load(workdir, (stage,))
    config.transfer.folds = ''
    pipeline.run(config, workdir)
    assert 'begins anew' not in capsys.readouterr().out
    for checkpoints, before, after in zip(trained, begun, expected):
        found = arrays(checkpoints / '6')
        assert found.keys() == after.keys()
        assert any((before[name] != x).any() for name, x in after.items())
        for name, x in found.items():
            moved = np.abs(after[name] - before[name]).max()
            np.testing.assert_allclose(x, after[name], rtol=1e-3, atol=0.02 * moved + 1e-6, err_msg=name)
