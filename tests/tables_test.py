import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline, tables
from artifacts_jax.data.errors import DataError
from artifacts_jax.exchange import exports
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import results

VOC_ROW = {'dataset': 'voc/2007', 'preset': 'philkr', 'steps': 80_000, 'train': 5_011, 'count': 4_952}


def layerwise(*accuracies):
    layers = {f'conv{n}': [{'accuracy': x, 'top5': x, 'correct': 1, 'count': 2}] for n, x in enumerate(accuracies, 1)}
    row = {'dataset': 'ants', 'train': 9, 'steps': 1_000, 'rates': [0.01], 'layers': layers}
    return {'layerwise': {'fair': row}}


def rows(text):
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines() if line.startswith('|')]


def test_tables_show_results_and_blanks(tmp_path):
    assert ['here', '', '', '', '', ''] in rows(tables.format_tables(tmp_path))
    results.write(tmp_path / tables.IMAGENET, layerwise(18.04, 31, 36, 37, 33.5))
    results.write(tmp_path / tables.PLACES, layerwise(20, 30, 35, 36, 34))
    results.write(
        tmp_path / tables.VOC, {'voc_classification': {'all': {**VOC_ROW, 'map': 68.76}, 'fc6': {'map': 1.0}}}
    )
    detection = {**VOC_ROW, 'preset': 'multi_scale', 'steps': 50, 'map': 51.96}
    results.write(tmp_path / tables.DETECTION, {'voc_detection': {'multi_scale_frozen1': detection}})
    tests = {'lists/seg11valid.txt': {'count': 736, 'miou': 38.14}, 'val': {'count': 1_449, 'miou': 36.0}}
    segmentation = {'dataset': 'VOC2012', 'preset': 'fcn', 'steps': 100_000, 'train': 8_498, 'tests': tests}
    results.write(tmp_path / tables.SEGMENTATION, {'voc_segmentation': {'fcn': segmentation}})
    text = tables.format_tables(tmp_path)
    table_rows = rows(text)
    assert ['here, fcn, seg11valid', '', '', '38.1'] in table_rows
    assert ['here, fcn, val', '', '', '36.0'] in table_rows
    assert '8,498 training and 736 test images, 100,000 updates; as published' in text
    assert ['here, multi scale frozen1', '', '52.0', ''] in table_rows
    assert ['here, fair', '18.0', '31.0', '36.0', '37.0', '33.5'] in table_rows
    assert ['here, fair', '20.0', '30.0', '35.0', '36.0', '34.0'] in table_rows
    assert ['here', '68.8', '', ''] in table_rows
    assert ['spot artifacts (the paper)', '19.5', '33.3', '37.9', '38.9', '34.9'] in table_rows
    assert ['spot artifacts (the paper)', '69.8', '52.5', '38.1'] in table_rows
    assert ['Agrawal', '54.2', '43.9', ''] in table_rows
    assert 'here, fair: ants, 9 training and 2 test images, 1,000 updates; published: 1,281,167 and 50,000' in text
    assert 'voc/2007, 5,011 training and 4,952 test images, 80,000 updates; as published' in text
    assert 'detection: voc/2007, 5,011 training and 4,952 test images, 50 updates; published: 5,011' in text


def test_a_random_network_is_labelled_random_network(tmp_path):
    note = {'provenance': {'voc_classification/all': {'network': 'random, state 0a1b2c3d'}}}
    results.write(tmp_path / tables.VOC, {'voc_classification': {'all': {**VOC_ROW, 'map': 50.0}}, **note})
    assert ['here, random network', '50.0', '', ''] in rows(tables.format_tables(tmp_path))


def test_keys_override_the_configuration_unless_empty(tmp_path, monkeypatch):
    ran = {}
    monkeypatch.setattr(pipeline, 'check', lambda config, workdir, **_: None)
    monkeypatch.setattr(pipeline, 'run', lambda config, workdir, **_: ran.update({workdir.name: config}))
    keys = {tables.DETECTION: {'voc_detection.proposals': 'voc_2007_{split}.mat', 'data.test': ''}}
    tables.run_tasks('random', tmp_path, {tables.DETECTION: 'voc/2007'}, keys=keys)
    assert ran[tables.DETECTION].data.test == 'test'
    assert ran[tables.DETECTION].voc_detection.proposals == 'voc_2007_{split}.mat'


def test_tasks_without_data_are_skipped_and_the_others_run(tmp_path, monkeypatch, capsys):
    ran = {}
    monkeypatch.setattr(pipeline, 'check', lambda config, workdir, **_: None)
    monkeypatch.setattr(pipeline, 'run', lambda config, workdir, **_: ran.update({workdir.name: config}))
    data = {tables.IMAGENET: 'imagenet2012', tables.PLACES: ''}
    text = tables.run_tasks('random', tmp_path, data, data_dir='prepared')
    assert set(ran) == {tables.IMAGENET}
    config = ran[tables.IMAGENET]
    assert (config.pretrained, config.data.name, config.data.data_dir) == ('random', 'imagenet2012', 'prepared')
    assert config.stages == ('layerwise',)
    assert 'places_linear: skipped, because --places is not given' in capsys.readouterr().out
    assert (tmp_path / 'tables.txt').read_text() == text


def test_missing_data_is_an_error_before_the_first_task_starts(config, stage_states, photograph_folder, tmp_path):
    exports.save(tmp_path / 'export', stage_states[artifacts].variables, config, networks=('trunk',))
    for split, source in {'train': 'train', 'val': 'test'}.items():
        (tmp_path / 'images').mkdir(exist_ok=True)
        (tmp_path / 'images' / split).symlink_to(photograph_folder / source)
    data = {tables.IMAGENET: str(tmp_path / 'images'), tables.VOC: str(tmp_path / 'nowhere')}
    with pytest.raises(DataError, match='nowhere'):
        tables.run_tasks(str(tmp_path / 'export'), tmp_path / 'run', data)
    assert not list((tmp_path / 'run').rglob('*.json'))


def test_the_configuration_has_the_trunk_of_the_export(config, stage_states, tmp_path):
    exports.save(tmp_path / 'export', stage_states[artifacts].variables, config, networks=('trunk',))
    task_config = tables.make_config(tables.VOC, str(tmp_path / 'export'))
    assert task_config.model == config.model
    assert configuration.check(task_config)
    (tmp_path / 'export' / 'config.json').write_text('{')
    with pytest.raises(exports.ExportError, match='cannot be read'):
        tables.make_config(tables.VOC, str(tmp_path / 'export'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--tasks=voc07_boxes',), '--tasks=voc07_boxes: unknown task; expected some of imagenet_linear'),
        (('--tasks=',), '--tasks=: no task; expected some of imagenet_linear'),
        (
            ('--tasks=voc07_detection', '--imagenet=x'),
            '--imagenet is the data of imagenet_linear, which --tasks does not include',
        ),
        ((), 'no task has data, and'),
        (('--voc=x', '--pretrained='), '--pretrained is empty'),
        (('--voc=x', '--pretrained=nowhere'), 'is not an export: its config.json is missing'),
    ],
)
def test_wrong_flags_are_one_line_errors(arguments, message, forks, tmp_path):
    printed = forks.refused('--pretrained=random', f'--workdir={tmp_path / "run"}', *arguments, module='tables')
    assert message in printed
    assert not (tmp_path / 'run').exists()


def test_another_export_in_the_same_work_directory_is_an_error(tmp_path, monkeypatch):
    def check(config, workdir, **_):
        raise configuration.DifferentConfigError(f'{workdir} was created with another configuration')

    monkeypatch.setattr(pipeline, 'check', check)
    with pytest.raises(configuration.ConfigError, match='another configuration\nUse another --workdir') as refused:
        tables.run_tasks('random', tmp_path, {tables.VOC: 'voc/2007'})
    assert 'force' not in str(refused.value)
