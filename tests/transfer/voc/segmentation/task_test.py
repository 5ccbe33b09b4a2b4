"""The whole task, on small synthetic images and on photographs."""

import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data.errors import DataError
from artifacts_jax.transfer.voc.segmentation import batches
from tests.transfer.voc import photographs
from tests.transfer.voc import trees as of_voc
from tests.transfer.voc.segmentation import made, trees

pytestmark = pytest.mark.usefixtures('little')


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    year = tmp_path_factory.mktemp('voc') / 'VOC2012'
    trees.voc(year, train=(0, 1, 2, 3), val=(4, 5), trainval=range(6))
    trees.sbd(year.parent, 3, 4)
    return year


@pytest.mark.slow
def test_a_run_reports_every_class_and_writes_the_figure(tree, tmp_path, capsys, read_png):
    config = made.small(of_voc.damaged(tree, tmp_path / 'voc', trees.name(4)))
    config.data.update(probe_train='trainval', test='trainval')
    results = pipeline.run(configuration.check(config), tmp_path)
    row = results['voc_segmentation']['fcn']
    metrics = row['tests']['trainval']
    assert (row['train'], metrics['count'], row['steps']) == (5, 5, 6)
    skipped = {tuple(line.split('\t')[:2]) for line in (tmp_path / 'skipped.tsv').read_text().splitlines()}
    splits = {f'{name} of {config.data.name}' for name in ('trainval', 'the training images')}
    assert skipped == {(split, trees.name(4)) for split in splits}
    assert metrics['iou']['aeroplane'] is None or metrics['iou']['aeroplane'] == 0
    known = [value for value in metrics['iou'].values() if value is not None]
    assert metrics['miou'] == pytest.approx(np.mean(known))
    text = (tmp_path / 'results.txt').read_text()
    assert '48.0' in text
    assert 'tvmonitor' in text
    assert read_png(tmp_path / 'figures' / 'segmentation.png').shape[1] > 1000
    assert f'{metrics["miou"]:.1f} % on trainval' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'error', 'message'),
    [
        ({'voc': False}, configuration.ConfigError, 'there are no training images'),
        ({'sbd': '/nowhere'}, DataError, '/nowhere does not contain SBD'),
    ],
)
def test_wrong_options_are_errors_before_anything_is_written(options, error, message, tree, tmp_path):
    with pytest.raises(error, match=message):
        pipeline.run(configuration.check(made.small(tree, **options)), tmp_path / 'run')
    assert not (tmp_path / 'run' / 'config.json').exists()


def test_overlap_of_training_and_test_is_an_error(tree, tmp_path):
    config = made.small(tree, sbd=str(tree.parent))
    with pytest.raises(
        DataError, match='1 of the 2 test images of val are also among the 5 training images, such as 2008_000004'
    ):
        pipeline.run(configuration.check(config), tmp_path / 'run')


@pytest.mark.parametrize(
    ('names', 'steps', 'min_miou'),
    [
        pytest.param(('astronaut', 'chelsea', 'flower'), 75, 80, marks=pytest.mark.slow),
        pytest.param(tuple(photographs.OUTLINES), 250, 90, marks=pytest.mark.nightly),
    ],
)
def test_the_masks_of_photographs_are_overfitted(names, steps, min_miou, tmp_path, monkeypatch, undrawn):
    monkeypatch.setattr(batches, 'SIZE_MULTIPLE', 64)
    year = photographs.devkit(tmp_path, side=64, names=names)
    config = made.small(year, steps=steps, learning_rate=0.008, hidden=128, dropout=0.0)
    config.model.update(widths=(16,) * 5)
    config.update(log_every=20, eval_every=1000, figure_every=1000, checkpoint_every=1000)
    config.data.update(probe_train='trainval', test='trainval')
    row = pipeline.run(configuration.check(config), tmp_path / 'run')['voc_segmentation']['fcn']
    metrics = row['tests']['trainval']
    assert metrics['count'] == len(names)
    known = {name for name, value in metrics['iou'].items() if value is not None}
    assert known == {'background', *(label for name in names for label, _ in photographs.OUTLINES[name])}
    assert metrics['miou'] > min_miou
