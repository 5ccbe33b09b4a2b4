"""Work directories that an earlier version made are complete, load and resume: see tests/earlier/make.py."""

import json
import re
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from artifacts_jax import figures, pipeline
from artifacts_jax.devices.parallel import Devices
from tests.earlier import make, workdirs

TRAINED = {  # {stage: the folders of what it trains}
    'autoencoder': ['pretraining/autoencoder'],
    'artifacts': ['pretraining/artifacts'],
    'stl10': ['pretraining/transfer/linear/all', 'pretraining/transfer/finetune/all'],
    'layerwise': ['pretraining/layerwise/vissl'],
    'voc_classification': ['voc2007/voc_classification/all'],
    'voc_detection': ['voc2007/voc_detection/single_scale_frozen1'],
    'voc_segmentation': ['voc2012/voc_segmentation/fcn'],
}


def numbers(text):
    """The numbers of a table, without its words."""
    return re.findall(r'\d+\.\d+', text)


def test_the_archive_is_small():
    assert workdirs.ARCHIVE.stat().st_size < 1_000_000


@pytest.mark.parametrize('workdir', workdirs.STAGES)
def test_completed_runs_are_complete_and_print_their_tables(workdir, earlier, monkeypatch, capsys):
    monkeypatch.setattr(Devices, 'train_step', None)  # nothing is trained
    text = (earlier / workdir / 'results.json').read_text()
    expected = json.loads(re.sub(r'"transfer(["/])', r'"stl10\1', text))  # its name now
    expected['provenance'] = expected.pop('made_from')
    tables = (earlier / workdir / 'results.txt').read_text()
    (earlier / workdir / 'results.txt').unlink()
    assert pipeline.run(workdirs.load(workdir), workdir) == expected
    assert numbers((earlier / workdir / 'results.txt').read_text()) == numbers(tables)
    assert numbers(tables)[-1] in capsys.readouterr().out


def test_exports_compute_what_they_did(earlier):
    with np.load('outputs.npz') as expected:
        found = make.outputs(expected['image'])
        assert found.keys() == {*expected.files} - {'image'}
        for name, x in found.items():
            if name == 'segmenter':
                assert (x == expected[name]).mean() > 0.99  # scores that are equal may be rounded apart
            else:
                np.testing.assert_allclose(x, expected[name], rtol=2e-3, atol=1e-4, err_msg=name)


@pytest.mark.slow
def test_figures_are_drawn(earlier):
    figures.write(earlier / 'pretraining', earlier / 'drawn', examples=1, bank=16)
    assert len(list((earlier / 'drawn').iterdir())) == 4


def arrays(checkpoint):
    """{path: array} of the variables in a checkpoint, read without this project's code."""
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore(checkpoint / 'variables')
    return {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}


@pytest.mark.slow
@pytest.mark.parametrize('stage', TRAINED)
def test_training_resumes_to_the_same_end(stage, earlier, undrawn, capsys):
    trained = [earlier / name / 'checkpoints' for name in TRAINED[stage]]
    begun, expected = ([arrays(checkpoints / step) for checkpoints in trained] for step in ('3', '6'))
    for checkpoints in trained:
        shutil.rmtree(checkpoints / '6')
    workdir = TRAINED[stage][0].partition('/')[0]
    results = json.loads((earlier / workdir / 'results.json').read_text())
    results.pop('transfer' if stage == 'stl10' else stage, None)
    (earlier / workdir / 'results.json').write_text(json.dumps(results))
    config = workdirs.load(workdir, (stage,))
    config.stl10.folds = ''
    pipeline.run(config, workdir)
    assert 'training restarts' not in capsys.readouterr().out
    for checkpoints, before, after in zip(trained, begun, expected):
        found = arrays(checkpoints / '6')
        assert found.keys() == after.keys()
        assert any((before[name] != x).any() for name, x in after.items())
        for name, x in found.items():
            moved = np.abs(after[name] - before[name]).max()
            np.testing.assert_allclose(x, after[name], rtol=1e-5, atol=0.02 * moved + 1e-7, err_msg=name)
