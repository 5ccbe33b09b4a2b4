import json

import pytest

from artifacts_jax import config as configuration
from artifacts_jax import study
from artifacts_jax.configs import study as small_study
from artifacts_jax.pretraining import autoencoder
from artifacts_jax.training import loop, report


def result(variant, seed, accuracies, **values):
    probe = {f'conv{n}': {'accuracy': x} for n, x in enumerate(accuracies, start=1)}
    return {'variant': variant, 'seed': seed, 'probe': probe, **values}


def test_table_has_means_deviations_and_paired_differences():
    game = {'accuracy': 75.0, 'mask_auc': 0.5, 'minutes': 2.0}
    rows = study.table(
        [
            result('random', 0, [50.0, 60.0]),
            result('default', 0, [52.0, 62.0], **game),
            result('default', 1, [56.0, 62.0], **game),
            result('gan', 0, [50.0, 60.0], **{**game, 'mask_auc': float('nan')}),
            result('gan', 1, [53.0, 61.0], **{**game, 'mask_auc': float('nan')}),
            result('late', 1, [57.0, 63.0], **game),
            {'variant': 'diverged', 'seed': 0, 'probe': {}, 'failed': 'loss is NaN'},
        ]
    ).splitlines()
    cells = {row.split('|')[1].strip(): [cell.strip() for cell in row.split('|')[2:-1]] for row in rows if '|' in row}
    assert cells['variant'] == ['conv1', 'conv2', 'discriminator', 'mask AUC', 'minutes', 'vs default']
    assert cells['random'] == ['50.00', '60.00', '-', '-', '-', '-2.00']
    assert cells['default'] == ['54.00 ± 2.83', '62.00 ± 0.00', '75.0 ± 0.0', '0.500 ± 0.000', '2.0 ± 0.0', '']
    # Seed by seed: 55 - 57 and 57 - 59, so that the seeds' own spread does not count.
    assert cells['gan'][-1] == '-2.00 ± 0.00'
    assert cells['gan'][3] == '-'
    assert set(cells['diverged']) == {'-'}
    assert cells['late'][-1] == '+1.00'  # against its own seed's 59


def test_a_study_of_an_earlier_version_is_resumed_with_its_autoencoder(tmp_path):
    assert study.autoencoder_folder(configuration.check(small_study.get_config()), tmp_path).name == 'seed_0_7475cff7'


def test_autoencoder_is_shared_by_variants_of_the_game(config, tmp_path):
    def folder(**changes):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict({name.replace('__', '.'): value for name, value in changes.items()})
        return study.autoencoder_folder(changed, tmp_path)

    assert folder() == folder(artifacts__drop_rate=0.1) == folder(log_every=7)
    assert len({folder(), folder(seed=1), folder(model__encoder_kernel=3), folder(optim__epsilon_hat=True)}) == 4


@pytest.mark.nightly
def test_study_runs_resumes_and_skips_variants_without_changes(
    config, photograph_folder, undrawn, tmp_path, monkeypatch, capsys
):
    config.data.name = str(photograph_folder)
    names = ['default', 'drop_rate_0.7', 'drop_rate_0.5']
    results = study.run(config, tmp_path, names, [0])
    assert 'drop_rate_0.7 is skipped: it is the same as the base configuration' in capsys.readouterr().out
    assert [row['variant'] for row in results] == ['random', 'default', 'drop_rate_0.5']
    assert results == json.loads((tmp_path / 'results.json').read_text())
    for row in results:
        assert all(layer['count'] == 20 for layer in row['probe'].values())
    assert 0 <= results[1]['accuracy'] <= 100
    assert 'drop_rate_0.5' in (tmp_path / 'results.txt').read_text()
    assert len(list((tmp_path / 'autoencoder').iterdir())) == 1
    before = report.read_metrics(next((tmp_path / 'autoencoder').glob('*/autoencoder/metrics.jsonl')))
    assert before[-1]['step'] == config[autoencoder.NAME].steps

    monkeypatch.setattr(loop, 'run', None)  # nothing is left to train
    assert study.run(config, tmp_path, names, [0]) == results
    assert study.run(config, tmp_path, ['default'], [0]) == results  # what was not asked for stays in the table
    config.probe.max_train = 20
    with pytest.raises(configuration.ConfigError, match=r'probe.max_train: 0 in config.json, 20 now'):
        study.run(config, tmp_path, names, [0])


def test_unknown_variant_is_refused_before_anything_runs(config, tmp_path):
    with pytest.raises(configuration.ConfigError, match="no variant 'twize'; the nearest is 'twice'"):
        study.run(config, tmp_path, ['twize'], [0])
    assert not list(tmp_path.iterdir())
