import json
import shutil

import jax
import numpy as np
import pytest

from artifacts_jax.exchange import exports, loaders
from artifacts_jax.models import architecture, heads
from artifacts_jax.pretraining import artifacts


@pytest.fixture
def variables(stage_states):
    return stage_states[artifacts].variables


def edit(folder, **changes):
    """Changes entries of an export's description; None removes one."""
    path = folder / 'config.json'
    description = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in description.items() if value is not None}))


def test_saved_networks_are_loaded_unchanged(variables, config, tmp_path):
    exports.save(tmp_path, variables, config)
    loaded = exports.load_networks(tmp_path, ['discriminator', 'decoder', 'encoder', 'repair'])
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    trunk = exports.load_networks(tmp_path, ['trunk'])
    jax.tree.map(np.testing.assert_array_equal, trunk['params']['trunk'], variables['params']['discriminator']['trunk'])
    with pytest.raises(exports.ExportError, match='has no head; its networks are: '):
        exports.load_networks(tmp_path, ['head'])


def test_a_truncated_file_is_a_one_line_error(variables, config, tmp_path):
    exports.save(tmp_path, variables, config, networks=('trunk',))
    (values,) = (tmp_path / 'trunk' / 'd').iterdir()
    values.write_bytes(values.read_bytes()[: values.stat().st_size // 2])
    with pytest.raises(exports.ExportError, match=r'damaged or incomplete: copy .*Orbax finds no arrays') as refused:
        exports.load_networks(tmp_path, ['trunk'])
    assert len(str(refused.value).splitlines()) == 1


def test_a_missing_network_is_named(variables, config, tmp_path):
    exports.save(tmp_path, variables, config, networks=('trunk',))
    shutil.rmtree(tmp_path / 'trunk')
    with pytest.raises(exports.ExportError, match=r'trunk is missing, but config\.json describes it: copy'):
        exports.load_networks(tmp_path, ['trunk'])


def test_exports_that_do_not_list_their_networks_hold_a_trunk(variables, config, tmp_path, batch):
    trunk = {kind: {'trunk': tree['discriminator']['trunk']} for kind, tree in variables.items()}
    exports.save(tmp_path, trunk, config)
    expected = loaders.load_features(tmp_path)(batch['image'])
    edit(tmp_path, networks=None, head=None)
    jax.tree.map(np.testing.assert_array_equal, loaders.load_features(tmp_path)(batch['image']), expected)
    with pytest.raises(exports.ExportError, match='has no classifier; its networks are: trunk'):
        loaders.load_classifier(tmp_path)


@pytest.mark.parametrize('protocol', ['linear', 'finetune'])
def test_a_loaded_classifier_gives_the_same_logits(protocol, config, tmp_path, batch):
    config.stl10.hidden = 6
    classifier = heads.Classifier(architecture.make_trunk(config), architecture.make_head(protocol, 3, config=config))
    images = batch['image'] / np.float32(127.5) - 1
    variables = jax.jit(classifier.init)(jax.random.key(0), images)
    exports.save(tmp_path, variables, config, head={'protocol': protocol, 'classes': 3})
    classify = loaders.load_classifier(tmp_path)
    np.testing.assert_allclose(classify(images), jax.jit(classifier.apply)(variables, images), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(classify(batch['image']), classify(images), rtol=1e-4, atol=1e-6)
    edit(tmp_path, head={'protocol': protocol, 'classes': 4})
    with pytest.raises(exports.ExportError, match=r'params/fc3?/bias: \(3,\) saved, \(4,\) expected'):
        loaders.load_classifier(tmp_path)


def test_an_interrupted_replacement_never_looks_complete(variables, config, tmp_path, monkeypatch):
    exports.save(tmp_path, variables, config)
    monkeypatch.setattr(exports.ocp, 'StandardCheckpointer', None)  # fails where networks are written
    trunk = {kind: {'trunk': tree['discriminator']['trunk']} for kind, tree in variables.items()}
    with pytest.raises(TypeError):
        exports.save(tmp_path, trunk, config)
    with pytest.raises(exports.ExportError, match='is not an export'):
        loaders.load_features(tmp_path)


def test_the_error_for_another_folder_names_its_exports(tmp_path):
    workdir = tmp_path / 'run'
    parts = [workdir / 'voc_detection' / each / 'export' for each in ('a', 'b')]
    workdir.mkdir()
    (workdir / 'config.json').write_text('{"seed": 0}')
    with pytest.raises(exports.ExportError, match='run is a work directory, not an export, and has none'):
        exports.read_description(workdir)
    for part in parts:
        part.mkdir(parents=True)
        (part / 'config.json').write_text('{"version": 1}')
    with pytest.raises(exports.ExportError, match=f'run is a work directory, .*: give {parts[0]} or {parts[1]}$'):
        exports.read_description(workdir)
    with pytest.raises(exports.ExportError, match=f'is a file, not an export: give its folder, {parts[0]}$'):
        exports.read_description(parts[0] / 'config.json')
    with pytest.raises(exports.ExportError, match='is a file, not an export: an export is a folder'):
        exports.read_description(workdir / 'config.json')
