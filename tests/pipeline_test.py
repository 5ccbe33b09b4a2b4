import json
import shutil

import jax
import numpy as np
import pytest

import artifacts_jax
from artifacts_jax import config as configuration
from artifacts_jax import figures, pipeline
from artifacts_jax.data import splits
from artifacts_jax.devices import host
from artifacts_jax.exchange import exports, loaders
from artifacts_jax.training import checkpoint, report
from tests import pages_test


@pytest.mark.slow
def test_results_count_every_example_of_every_layer(finished_run):
    _, workdir, results = finished_run
    assert results == json.loads((workdir / 'results.json').read_text())
    assert list(results['probe']) == ['pixels', 'random', 'learned']
    for network in ('random', 'learned'):
        rows = results['probe'][network]
        assert list(rows) == ['conv1', 'conv2', 'conv3', 'conv4', 'conv5']
        assert all(row['count'] == 20 and row['dimensions'] <= 64 for row in rows.values())
        assert all(row['accuracy'] == 100 * row['correct'] / 20 for row in rows.values())
    # Astronaut or coffee: colour alone tells most crops.
    assert results['probe']['random']['conv1']['accuracy'] > 60
    table = (workdir / 'results.txt').read_text()
    assert '48 training and 20 test images' in table
    assert f'{results["probe"]["learned"]["conv3"]["accuracy"]:.2f}' in table


@pytest.mark.slow
def test_work_directory_holds_what_is_documented(finished_run):
    _, workdir, _ = finished_run
    for name in ('config.json', 'results.txt', 'export/config.json', 'autoencoder/metrics.jsonl'):
        assert (workdir / name).stat().st_size > 0, name
    figures = {path.name for path in (workdir / 'figures').glob('*.png')}
    expected = 'autoencoder artifacts mask_prediction conv1 probe autoencoder_curves artifacts_curves'.split()
    assert figures == {f'{name}.png' for name in expected}
    assert pages_test.undocumented(workdir) == []
    for stage in ('autoencoder', 'artifacts'):
        assert {path.name for path in (workdir / stage / 'checkpoints').iterdir()} >= {'3', '6'}
        assert list((workdir / 'tensorboard' / stage).iterdir())


@pytest.mark.slow
def test_the_figures_command_plots_the_same_figures_as_training(finished_run, tmp_path, read_png):
    _, workdir, _ = finished_run
    figures.write(workdir, tmp_path, bank=20)
    for name in ('artifacts', 'mask_prediction', 'conv1'):
        np.testing.assert_array_equal(read_png(tmp_path / f'{name}.png'), read_png(workdir / 'figures' / f'{name}.png'))


@pytest.mark.slow
def test_metrics_contain_each_loss_term(finished_run):
    _, workdir, _ = finished_run
    rows = report.read_metrics(workdir / 'artifacts' / 'metrics.jsonl')
    assert [row['step'] for row in rows if 'train/images_per_second' in row] == [1, 2, 3, 4, 5, 6]
    training = {name for row in rows for name in row}
    for name in ('discriminator_class', 'discriminator_mask', 'discriminator_l2', 'generator_class', 'generator_pixel'):
        assert f'train/loss/{name}' in training
    assert {'train/mask/on_kept', 'train/mask/on_dropped'} <= training
    for name in ('accuracy/real', 'accuracy/fake', 'accuracy/mask'):
        assert {f'train/{name}', f'test/{name}'} <= training
    assert {'test/mask_auc', 'test/knn/conv5', 'test/rankme/conv1', 'train/grad_norm/repair'} <= training
    assert 'test/psnr' in report.read_metrics(workdir / 'autoencoder' / 'metrics.jsonl')[0]


@pytest.mark.slow
def test_a_run_without_a_nan_loss_has_nothing_to_replay(finished_run):
    config, workdir, _ = finished_run
    with pytest.raises(configuration.ConfigError, match='nothing to replay: no step in'):
        pipeline.replay_nonfinite(config, workdir)


@pytest.mark.nightly
def test_a_step_with_a_nan_loss_is_replayed(finished_run, undrawn, tmp_path, monkeypatch, capsys):
    config, workdir = finished_run[0].copy_and_resolve_references(), tmp_path / 'run'
    config.stages, config.autoencoder.pretrained = ('artifacts',), str(finished_run[1] / 'autoencoder' / 'export')
    original = pipeline.artifacts.train_step

    def broken(state, batch, key, **options):
        state, values = original(state, batch, key, **options)
        return state, {**values, 'loss/generator_class': values['loss/generator_class'] + 0 * (1 / (state.step - 5))}

    monkeypatch.setattr(pipeline.artifacts, 'train_step', broken)
    with pytest.raises(pipeline.loop.NonFiniteError, match=r'generator_class is nan at step 5 of artifacts.*--replay'):
        pipeline.run(config, workdir)
    assert pipeline.replay_nonfinite(config, workdir)['step'] == 5
    assert 'loss/generator_class: nan' in capsys.readouterr().out


@pytest.mark.slow
def test_a_work_directory_in_use_is_refused(finished_run):
    config, workdir, _ = finished_run
    with host.exclusive_lock(workdir), pytest.raises(configuration.ConfigError, match='is in use by process'):
        pipeline.run(config, workdir)


@pytest.mark.slow
def test_an_invalid_batch_size_leaves_no_work_directory(finished_run, tmp_path):
    config = finished_run[0].copy_and_resolve_references()
    config.batch_size = 6
    with pytest.raises(configuration.ConfigError, match='batch_size=6 is not divisible by the 4 devices; use 8'):
        pipeline.run(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_second_call_trains_nothing_and_reports_complete_stages(finished_run, capsys, monkeypatch):
    config, workdir, results = finished_run
    monkeypatch.setattr(splits, 'load', None)  # needs no data
    assert pipeline.run(config, workdir) == results
    said = capsys.readouterr().out
    assert 'artifacts: all 6 steps are done' in said
    assert '\nautoencoder: complete, 6 steps\nartifacts: complete, 6 steps\nprobe: has results; ' in said
    assert str(workdir / 'results.txt') in said


@pytest.mark.parametrize(
    ('stages', 'message'),
    [
        (('artifacts',), r'autoencoder is at step 0 of 6 in .*, or give an export in --config.autoencoder.pretrained$'),
        (
            ('knn', 'probe'),
            r'artifacts is at step 0 of 6 .*\(add it to --config.stages\), or give .* --config.pretrained$',
        ),
        (('autoencoder', 'knn'), 'artifacts is at step 0 of 6'),
    ],
)
def test_a_missing_previous_stage_is_an_error_before_anything_is_written(stages, message, config, tmp_path):
    config.stages = stages
    with pytest.raises(checkpoint.CheckpointError, match=message):
        pipeline.run(configuration.check(config), tmp_path / 'run')
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_exported_features_are_the_trained_ones(finished_run):
    config, workdir, _ = finished_run
    features = artifacts_jax.load_features(workdir / 'export')
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    maps = features(images)
    assert {name: x.shape for name, x in maps.items()} == {
        'conv1': (3, 16, 16, 4),
        'conv2': (3, 8, 8, 8),
        'conv3': (3, 4, 4, 8),
        'conv4': (3, 4, 4, 8),
        'conv5': (3, 4, 4, 8),
    }
    np.testing.assert_allclose(maps['conv5'], features(images / 127.5 - 1)['conv5'], atol=1e-4)
    state = pipeline.loop.load_final_state(pipeline.artifacts, config, workdir, pipeline.Devices('jit'))
    _, variables, size = loaders.load_variables(workdir / 'export')
    assert size == 16
    jax.tree.map(np.testing.assert_array_equal, variables['params'], state.params['discriminator']['trunk'])


@pytest.fixture
def forced(finished_run, tmp_path):
    """(config, a copy of the finished run's work directory), to go on with other values."""
    config, workdir = finished_run[0].copy_and_resolve_references(), tmp_path / 'run'
    shutil.copytree(finished_run[1], workdir)
    config.force = True
    return config, workdir


def check_current(config, workdir):
    """Asserts that every product is of the state that the work directory has now; returns that state."""
    state = pipeline.loop.load_final_state(pipeline.artifacts, config, workdir, pipeline.Devices('jit'))
    _, variables, _ = loaders.load_variables(workdir / 'export')
    jax.tree.map(np.testing.assert_array_equal, variables['params'], state.params['discriminator']['trunk'])
    description = json.loads((workdir / 'export' / 'config.json').read_text())
    assert description['source'] == {'stage': 'artifacts', 'step': int(state.step)}
    assert description['config']['artifacts']['steps'] == int(state.step)
    results = json.loads((workdir / 'results.json').read_text())
    learned = results['provenance']['probe/learned']['network']
    assert learned.startswith(f'artifacts at step {int(state.step)}, state ')
    return results


@pytest.mark.slow
def test_results_and_exports_are_updated_after_more_training(forced, undrawn):
    config, workdir = forced
    before = check_current(config, workdir)
    config.artifacts.steps = 8
    pipeline.run(config, workdir)
    after = check_current(config, workdir)
    assert after['provenance']['probe/random'] == before['provenance']['probe/random']
    assert after['probe']['random'] == before['probe']['random']
    assert [old['part'] for old in after['replaced']] == ['probe/learned']
    assert after['replaced'][0]['result'] == before['probe']['learned']


@pytest.mark.slow
def test_results_are_updated_after_a_change_of_settings(forced):
    config, workdir = forced
    config.probe.max_values = 32
    results = pipeline.run(config, workdir)
    assert {row['dimensions'] for row in results['probe']['learned'].values()} <= set(range(33))
    assert [old['part'] for old in results['replaced']] == ['probe/pixels', 'probe/random', 'probe/learned']
    assert (workdir / 'results.txt').read_text().count('conv5') == 1


@pytest.mark.slow
def test_artifacts_restarts_on_a_new_autoencoder_and_old_files_are_kept(forced, undrawn, capsys):
    config, workdir = forced
    config.autoencoder.steps = 8
    pipeline.run(config, workdir)
    check_current(config, workdir)
    assert (
        'artifacts: training restarts from step 0, because its base stage or its settings have changed'
        in capsys.readouterr().out
    )
    assert {path.name for path in (workdir / 'artifacts' / 'replaced' / '1').iterdir()} == {
        'checkpoints',
        'metrics.jsonl',
    }
    base = pipeline.loop.load_final_state(pipeline.autoencoder, config, workdir, pipeline.Devices('jit'))
    state = pipeline.loop.load_final_state(pipeline.artifacts, config, workdir, pipeline.Devices('jit'))
    jax.tree.map(np.testing.assert_array_equal, state.frozen['params'], base.params)


@pytest.mark.slow
def test_a_wrong_first_command_keeps_no_configuration(finished_run, tmp_path, monkeypatch):
    config = finished_run[0].copy_and_resolve_references()
    config.data.test = 'nowhere'
    with pytest.raises(splits.DataError, match="no split 'nowhere'"):
        pipeline.run(config, tmp_path / 'run')
    assert not (tmp_path / 'run').exists()

    def stop(*given):
        raise checkpoint.CheckpointError('stopped')

    config.data.test = 'test'
    monkeypatch.setattr(pipeline.loop, 'run', stop)
    for drop_rate in (0.5, 0.6):  # nothing is trained yet, so that another configuration is no contradiction
        config.artifacts.drop_rate = drop_rate
        with pytest.raises(checkpoint.CheckpointError, match='stopped'):
            pipeline.run(config, tmp_path / 'run')
        assert json.loads((tmp_path / 'run' / 'config.json').read_text())['artifacts']['drop_rate'] == drop_rate


def write_arrays(folder, count, labels):
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    for split in ('train', 'test'):
        np.savez(folder / f'{split}.npz', image=images, **({} if labels is None else {'label': labels}))


@pytest.mark.parametrize(
    ('count', 'labels', 'reason'),
    [
        (6, None, "split 'train' of .* has no labels"),
        (6, np.zeros(6, int), 'has a single class'),
        (1, np.ones(1, int), r'probe.held_out=0.1 of 1 training images is 0'),
    ],
)
def test_a_probe_that_does_not_apply_to_the_data_is_skipped_and_named(
    config, tmp_path, capsys, monkeypatch, count, labels, reason
):
    write_arrays(tmp_path / 'data', count, labels)
    config.data.name = str(tmp_path / 'data')
    config.stages, config.pretrained = ('probe',), 'random'
    with pytest.raises(
        splits.DataError, match=r'nothing to do: each stage of --config.stages \(probe\) is imported or'
    ):
        pipeline.run(config, tmp_path / 'run')
    with pytest.raises(AssertionError, match=f'probe will be skipped: .*{reason}'):
        raise AssertionError(capsys.readouterr().out)
    assert not (tmp_path / 'run').exists()
    config.stages = ('stl10',)
    if labels is None:
        with pytest.raises(splits.DataError, match='has images without labels, but stl10 needs'):
            pipeline.run(config, tmp_path / 'run')


def test_overlap_of_training_and_test_images_is_a_warning(config, photograph_folder, tmp_path, capsys):
    config.stages = ('probe',)
    for test, warned in (('train[24:]', False), ('train[12:]', True), ('test', False)):
        config.data.update(name=str(photograph_folder), probe_train='train[:24]', test=test)
        pipeline._validate_data(pipeline.Run(config, tmp_path, pipeline.Devices('jit'), splits.Datasets(config)), {})
        assert (f'12 of the 36 test images of {test} are also training images' in capsys.readouterr().err) == warned


def test_fewer_images_than_neighbours_all_vote(config, tmp_path, stage_states):
    write_arrays(tmp_path / 'data', 6, np.arange(6) % 2)
    config.data.name, config.monitor.neighbours = str(tmp_path / 'data'), 20
    devices = pipeline.Devices('jit', jax.devices()[:1])
    measure = pipeline.artifacts.held_out.extraction.make_monitor(config, devices, splits.Datasets(config))
    values = measure(pipeline.artifacts.select_discriminator(stage_states[pipeline.artifacts].variables))
    assert 0 <= values['knn/conv5'] <= 1


@pytest.mark.slow
def test_errors_of_invalid_exports_name_the_difference(finished_run, tmp_path):
    _, workdir, _ = finished_run
    with pytest.raises(exports.ExportError, match='is not an export'):
        loaders.load_features(tmp_path)
    description = json.loads((workdir / 'export' / 'config.json').read_text())
    (tmp_path / 'trunk').symlink_to(workdir / 'export' / 'trunk')
    (tmp_path / 'config.json').write_text(json.dumps({**description, 'version': 99}))
    with pytest.raises(exports.ExportError, match='has version 99'):
        loaders.load_features(tmp_path)
    description['config']['model']['widths'] = [4, 8, 8, 8, 12]
    (tmp_path / 'config.json').write_text(json.dumps(description))
    with pytest.raises(
        exports.ExportError, match=r'conv5/group0/kernel: \(3, 3, 4, 4\) saved, \(3, 3, 4, 6\) expected'
    ):
        loaders.load_features(tmp_path)


@pytest.mark.slow
def test_imported_networks_replace_trained_ones(finished_run, tmp_path, monkeypatch):
    config, workdir, results = finished_run
    config = config.copy_and_resolve_references()
    config.autoencoder.pretrained = str(workdir / 'autoencoder' / 'export')
    config.artifacts.pretrained = str(workdir / 'export')
    monkeypatch.setattr(pipeline.loop, 'run', None)  # nothing is trained
    assert pipeline.run(config, tmp_path)['probe'] == results['probe']

    base = pipeline.exports.load_networks(config.autoencoder.pretrained, ('encoder', 'decoder'), config)
    state = pipeline.loop.load_final_state(pipeline.autoencoder, finished_run[0], workdir, pipeline.Devices('jit'))
    jax.tree.map(np.testing.assert_array_equal, base, state.variables)
    config.artifacts.pretrained, config.stages = '', ('autoencoder', 'artifacts')
    monkeypatch.setattr(
        pipeline.loop,
        'run',
        lambda stage, config, workdir, devices, datasets, base: pipeline.loop.make_initial_state(
            stage, config, devices, base
        ),
    )
    pipeline.run(config, tmp_path / 'trained')  # on all four devices, from what was restored to one
    config.model.upsampling = 'legacy'
    with pytest.raises(exports.ExportError, match=r'--config\.model\.upsampling=half_pixel'):
        pipeline.exports.load_networks(config.autoencoder.pretrained, ('encoder', 'decoder'), config)
