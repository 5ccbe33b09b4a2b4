import ast
import importlib
import json
from pathlib import Path

import pytest

from artifacts_jax import config as configuration
from artifacts_jax.configs import declarations, default
from artifacts_jax.training import results

ROOT = Path(__file__).parent.parent
MODULES = ('variants', 'declarations', 'saved', 'tasks')  # modules in configs/ that are not configurations
FILES = [path.relative_to(ROOT) for path in (ROOT / 'configs').rglob('*.py') if path.stem not in MODULES]
NAMES = sorted('.'.join(path.with_suffix('').parts) for path in FILES)


def compare_and_write(config, workdir, *, force=False):
    differences = configuration.compare(config, workdir, force=force)
    if differences is not None:
        results.write_config(workdir, config)
    return differences


@pytest.mark.parametrize('name', NAMES)
def test_every_config_loads_and_can_be_run(name):
    module = importlib.import_module(name)
    configuration.check(module.get_config())
    assert module.__doc__


def test_every_key_has_a_comment_and_is_read():
    read = set()
    for path in (ROOT / 'artifacts_jax').rglob('*.py'):
        if path.name != 'config.py':  # it only validates the keys
            read |= {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    commented = declarations.parse_comments(
        ''.join((ROOT / 'configs' / name).read_text() for name in declarations.FILES)
    )
    for key in configuration.flatten(default.get_config().to_dict()):
        name = key.split('.')[-1]
        splits = ('data.train', 'data.probe_train', 'data.test')  # read by name, in splits.Datasets
        assert name in read or key in splits, f'{key} is never read'
        assert key in commented, f'{key} has no comment'


def test_keys_of_earlier_versions_are_ignored(tmp_path):
    config = default.get_config()
    results.write_config(tmp_path, config)
    saved = json.loads((tmp_path / 'config.json').read_text())
    saved['data']['shuffle_buffer'] = 99
    (tmp_path / 'config.json').write_text(json.dumps(saved))
    assert configuration.compare(config, tmp_path) is None
    assert configuration.load(tmp_path, default.get_config())[0] == config


def test_unknown_key_names_the_nearest():
    with pytest.raises(
        configuration.ConfigError, match=r'--config\.artifacts\.drop_rat: .* --config\.artifacts\.drop_rate'
    ):
        configuration.check_unknown(['--config.artifacts.drop_rat=0.5'], default.get_config())
    configuration.check_unknown(['--config.artifacts.drop_rate=0.5', '--workdir=x'], default.get_config())


@pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
        ('parallel', 'pjit', r"parallel='pjit': choose one of jit, pmap"),
        ('stages', ('autoencoder', 'prob'), r"no 'prob', the nearest is 'probe'"),
        ('artifacts.drop_rate', 1.5, r'artifacts.drop_rate=1.5: must lie in \[0, 1\]'),
        ('batch_size', 0, r'batch_size=0: must be greater than 0'),
        ('accumulate', 0, r'accumulate=0: must be greater than 0'),
        ('augment.crop_area', (0.8, 0.3), r'augment.crop_area=\(0.8, 0.3\): must be a range'),
        ('stl10.protocols', ('lineal',), r"no 'lineal', the nearest is 'linear'"),
        ('stl10.batch_norm', 'train', r"stl10.batch_norm='train': choose one of frozen, reference"),
        ('stl10.dropout', 1.0, r'stl10.dropout=1.0: must lie in \[0, 1\)'),
        ('stl10.epochs', 0, r'stl10.epochs=0: must be greater than 0'),
        ('stl10.num_folds', 1, r'stl10.num_folds=1: must lie in \[2, inf\)'),
        ('seed', -1, r'seed=-1: must lie in \[0, inf\)'),
        ('probe.max_test', -1, r'probe.max_test=-1: must lie in \[0, inf\)'),
        ('augment.crop_area', (0.5,), r'augment.crop_area=\(0.5,\): must be a range \(low, high\)'),
        ('augment.crop_area', (0.5, float('nan')), r'must be a tuple of numbers'),
        ('artifacts.pixel_weight', float('inf'), r'artifacts.pixel_weight=inf: must be a number'),
        ('model.widths', (96, 256, 0, 384, 256), r'model.widths=.*: must be one or more numbers in \[1, inf\)'),
        ('stages', (), r'stages=\(\): give at least one of autoencoder, artifacts'),
        ('data.name', '', r"data.name='': must not be empty"),
        ('model.groups', 5, r'conv2 has model.groups=5'),
        ('model.image_size', 100, r'model.image_size=100: .*sizes that work: 80, 96, 112, 128'),
        ('model.conv1_stride', 2, r'no size works: the encoder divides by 16 and the discriminator by 8'),
    ],
)
def test_invalid_value_raises_an_error_with_the_accepted_values(key, value, message):
    config = default.get_config()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.check(config)


def test_work_directory_keeps_its_configuration_unless_forced(tmp_path):
    config = default.get_config()
    compare_and_write(config, tmp_path)
    config.log_every = 7  # keys of logging can change
    config.stl10.folds = 'fold_indices.txt'  # and keys that select results
    compare_and_write(config, tmp_path)
    config.artifacts.drop_rate = 0.5
    with pytest.raises(configuration.ConfigError, match=r'artifacts.drop_rate: 0.7 in config.json, 0.5 now'):
        compare_and_write(config, tmp_path)
    assert 'artifacts.drop_rate: 0.7 in config.json, 0.5 now' in compare_and_write(config, tmp_path, force=True)
    assert compare_and_write(config, tmp_path) is None


@pytest.mark.parametrize('text', ['{"seed": ', '[]'])
def test_a_damaged_configuration_is_never_replaced(unchecked, text, config, tmp_path):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(configuration.ConfigError, match=r'config\.json cannot be read: .*; delete it if you are sure'):
        compare_and_write(config, tmp_path, force=True)
    assert (tmp_path / 'config.json').read_text() == text


def test_a_work_directorys_configuration_is_read_as_it_was_written(config, tmp_path):
    config.artifacts.drop_rate, config.stages = 0.3, ('artifacts',)
    compare_and_write(config, tmp_path)
    loaded, newer = configuration.load(tmp_path, default.get_config())
    assert loaded == config
    assert loaded.is_locked
    assert isinstance(loaded.augment.crop_area, tuple)
    assert newer == []


def test_keys_that_a_work_directory_lacks_keep_their_defaults_and_are_named(config, tmp_path):
    compare_and_write(config, tmp_path)
    saved = json.loads((tmp_path / 'config.json').read_text())
    del saved['artifacts']['rounds'], saved['stl10']
    (tmp_path / 'config.json').write_text(json.dumps(saved))
    loaded, newer = configuration.load(tmp_path, default.get_config())
    assert loaded == config
    assert {'artifacts.rounds', 'stl10.epochs'} <= set(newer)
    assert all(key == 'artifacts.rounds' or key.startswith('stl10.') for key in newer)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (None, 'is not a work directory'),
        ('{"seed": ', 'cannot be read'),
        ('[]', 'cannot be read'),
        ('{"droprate": 0.5}', 'does not declare: droprate'),
        ('{"seed": "zero"}', 'cannot be read'),
        ('{"artifacts": {"drop_rate": 2.0}}', 'must lie in'),
    ],
)
def test_invalid_configuration_file_is_an_error(text, message, tmp_path):
    if text is not None:
        (tmp_path / 'config.json').write_text(text)
    with pytest.raises(configuration.ConfigError, match=message):
        configuration.load(tmp_path, default.get_config())
