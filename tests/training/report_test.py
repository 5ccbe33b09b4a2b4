import json

import pytest

from artifacts_jax.training import report


def open_report(workdir, start):
    return report.Report(
        workdir, 'autoencoder', start, steps=6, batch_size=8, log_every=1, progress_metrics={'PSNR': 'psnr'}
    )


def test_incomplete_last_line_is_skipped(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3, "tra')
    assert [row['step'] for row in report.read_metrics(path)] == [1, 2]
    assert report.read_metrics(tmp_path / 'missing.jsonl') == []


def test_resuming_keeps_each_step_once(tmp_path):
    path = tmp_path / 'autoencoder' / 'metrics.jsonl'
    path.parent.mkdir()
    path.write_text(''.join(json.dumps({'step': n}) + '\n' for n in range(1, 6)))  # 4 and 5 came after the checkpoint
    with open_report(tmp_path, 3) as stage_report:
        for step in (4, 5, 6):
            stage_report.log_train(step, {'loss/pixel': 1.0})
        stage_report.log_test(6, {'psnr': 20.0})
    rows = report.read_metrics(path)
    assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6, 6]
    assert rows[-1] == {'step': 6, 'test/psnr': 20.0}
    assert rows[-2]['train/images_per_second'] > 0


def test_restart_removes_the_evaluation_at_step_0(tmp_path):
    path = tmp_path / 'autoencoder' / 'metrics.jsonl'
    path.parent.mkdir()
    path.write_text('{"step": 0}\n')
    with open_report(tmp_path, 0):
        pass
    assert report.read_metrics(path) == []


def test_only_progress_metrics_are_printed(tmp_path, capsys):
    with open_report(tmp_path, 0) as stage_report:
        stage_report.log_test(4, {'psnr': 20.123456, 'mse': 0.5})
    shown = capsys.readouterr().out
    assert '| autoencoder, held out |  PSNR |' in shown
    assert '| step 4                | 20.12 |' in shown
    assert 'mse' not in shown
    assert report.read_metrics(tmp_path / 'autoencoder' / 'metrics.jsonl') == [
        {'step': 4, 'test/psnr': 20.123456, 'test/mse': 0.5}
    ]


def test_time_sections_are_excluded_from_the_rate_and_reported(tmp_path, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(report.time, 'monotonic', lambda: now[0])
    with open_report(tmp_path, 0) as stage_report:
        with stage_report.time_section('evaluation'):
            now[0] += 6
        now[0] += 2
        stage_report.log_train(1, {})
    assert report.read_metrics(tmp_path / 'autoencoder' / 'metrics.jsonl')[0][
        'train/images_per_second'
    ] == pytest.approx(4)
    assert 'autoencoder: 8 seconds, of which 75.0 % evaluation' in capsys.readouterr().out


def test_tensorboard_shows_the_metrics(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_report(tmp_path, 0) as stage_report:
        for step in (1, 2):
            stage_report.log_train(step, {'loss/pixel': 0.5 * step})
    (file,) = (tmp_path / 'tensorboard' / 'autoencoder').iterdir()
    events = EventAccumulator(str(file)).Reload()
    assert [(event.step, event.value) for event in events.Scalars('train/loss/pixel')] == [(1, 0.5), (2, 1.0)]
