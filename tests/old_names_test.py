"""Old names of sections and stages: in configurations, on the command line, in saved files, keys and digests."""

import json
import zlib

import jax
import pytest
from absl import flags
from ml_collections import config_flags

from artifacts_jax import config as configuration
from artifacts_jax import configs, old_names
from artifacts_jax.configs import default
from artifacts_jax.training import keys, results


def test_a_configuration_takes_old_names():
    config = default.get_config()
    config.transfer.epochs = 3
    config['transfer']['hidden'] = 5
    config.stages = ('probe', 'transfer')
    config.update({'transfer': {'batch_size': 7}})
    config.update_from_flattened_dict({'transfer.dropout': 0.25})
    expected = {'epochs': 3, 'hidden': 5, 'batch_size': 7, 'dropout': 0.25}
    assert {name: config.stl10[name] for name in expected} == expected
    assert config.stages == ('probe', 'stl10')
    assert 'transfer' not in config.to_dict()
    assert configuration.check(config) is config


def test_a_copy_takes_old_names():
    for copy in (default.get_config().copy_and_resolve_references(), configuration.overlay(default.get_config(), {})):
        copy.transfer.epochs = 3
        assert copy.stl10.epochs == 3


@pytest.mark.filterwarnings('ignore:the load_module')  # by ml_collections
def test_flags_and_saved_configurations_take_old_names(tmp_path, monkeypatch):
    saved = default.get_config().to_dict()
    saved['transfer'] = {**saved.pop('stl10'), 'num_folds': 3}
    (tmp_path / 'config.json').write_text(json.dumps(saved))
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', flag_values=values)
    path = f'--config={configs.FOLDER}/saved.py:{tmp_path}/config.json'
    monkeypatch.setattr(
        'sys.argv', argv := ['main', path, '--config.transfer.epochs=2', "--config.stages=('transfer',)"]
    )
    values(argv)
    config = configuration.check(values.config)
    assert (config.stl10.num_folds, config.stl10.epochs, config.stages) == (3, 2, ('stl10',))
    config.stl10.epochs = 400
    assert configuration.compare(config, tmp_path) is None


@pytest.mark.parametrize('name', ['stl10/linear/all', 'stl10', 'stl10.epochs', 'probe/learned', 'stl10x/y'])
def test_names_are_replaced_whole(name):
    old = old_names.to_old_name(name)
    assert old == (name if name.startswith(('probe', 'stl10x')) else name.replace('stl10', 'transfer'))
    assert old_names.to_new_name(old) == name


def test_random_keys_are_those_of_the_old_name():
    for stage in ('linear/all', 'finetune/fold_3'):
        expected = jax.random.fold_in(jax.random.key(5), zlib.crc32(f'transfer/{stage}'.encode()))
        assert (keys.stage_key(5, f'stl10/{stage}') == expected).all()


def test_digests_are_those_of_the_old_name():
    config = default.get_config()
    config.update_from_flattened_dict({'stl10.batch_norm': 'reference', 'seed': 2})
    assert (
        results.compute_provenance('network', config, 'stl10')['settings'] == '9f17fb4a'
    )  # computed before the renaming


def test_results_of_earlier_versions_are_read_with_new_names(tmp_path):
    note, row = {'network': 'seed 0', 'settings': '9f17fb4a'}, {'accuracy': 71.0}
    replaced = {'part': 'transfer/linear/all', 'made_from': note, 'result': row}
    before = {'transfer': {'linear': {'all': row}}, 'made_from': {'transfer/linear/all': note}, 'replaced': [replaced]}
    (tmp_path / 'results.json').write_text(json.dumps(before))
    all_results = results.read(tmp_path)
    assert all_results == {
        'stl10': {'linear': {'all': row}},
        'provenance': {'stl10/linear/all': note},
        'replaced': [{'part': 'stl10/linear/all', 'provenance': note, 'result': row}],
    }
    results.write(tmp_path, all_results)
    assert results.read(tmp_path) == all_results


def test_stages_keep_the_folder_that_an_earlier_version_created(tmp_path):
    assert old_names.find_stage_folder(tmp_path, 'stl10/linear') == tmp_path / 'stl10' / 'linear'
    (tmp_path / 'transfer').mkdir()
    assert old_names.find_stage_folder(tmp_path, 'stl10/linear') == tmp_path / 'transfer' / 'linear'
    assert old_names.find_stage_folder(tmp_path, 'layerwise/fair') == tmp_path / 'layerwise' / 'fair'
    (tmp_path / 'stl10').mkdir()
    assert old_names.find_stage_folder(tmp_path, 'stl10/linear') == tmp_path / 'stl10' / 'linear'
