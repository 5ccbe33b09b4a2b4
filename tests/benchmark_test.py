import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from artifacts_jax import benchmark, startup
from artifacts_jax import config as configuration
from artifacts_jax.configs import default, demo
from artifacts_jax.pretraining import autoencoder
from artifacts_jax.training import measure

ROW = {
    'stage': 'autoencoder',
    'batch': 16,
    'images_per_s': 80.0,
    'step_s': [0.1, 0.2, 0.3],
    'compile_s': 9.0,
    'compile_cached_s': 2.0,
    'flops': 28e9,
    'bytes': 2.5e9,
    'memory_bytes': 235_000_000,
    'roofline': 0.345,
    'convolution_share': 0.89,
}
PEER = {'peer': 50.0, 'ratio': 1.6}


def test_table_has_readable_units():
    results = {
        'machine': {'device': 'cpu', 'matmul_flops': 3.8e11, 'convolution_flops': 3.5e11, 'copy_bytes': 4e10},
        'devices': 1,
        'versions': 'Python 3.11',
        'dtype': 'float32',
        'stages': [{**ROW, **PEER}, {**ROW, **PEER, 'batch': 64, 'step_s': [0.5, 0.7, 0.9]}],
        'pipeline': {'memory': 80_000.0},
        'host_peak_bytes': 1_060_000_000,
    }
    text = benchmark.table(results)
    assert 'matrix products 380 GFLOP/s, convolutions 350 GFLOP/s, copies 40 GB/s' in text
    header, row = ([cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()[3:6:2])
    cells = dict(zip(header, row, strict=True))
    assert cells['images/s'] == '80.0'
    assert cells['step s (min, max)'] == '0.200 (0.100, 0.300)'
    assert cells['compile s (cached)'] == '9.0 (2.0)'
    assert (cells['FLOP'], cells['bytes'], cells['memory']) == ('28 G', '2.5 G', '235 MB')
    assert (cells['roofline'], cells['convolutions']) == ('34 %', '89 %')
    assert (cells['peer'], cells['ratio']) == ('50.0', '1.60')
    assert 'autoencoder, from batch size 16 to 64 (4x images): a step takes 3.50 times as long' in text
    assert 'input pipeline, memory: 80,000 images/s' in text
    assert 'peak memory of the host: 1.06 GB' in text


def test_peer_is_a_command_that_prints_json(monkeypatch):
    program = "import json; print('noise'); print(json.dumps({{'images_per_s': {batch}.5, 'stage': '{stage}'}}))"
    assert benchmark.run_peer(f'{sys.executable} -c "{program}"', 'artifacts', 16) == 16.5
    tunables = "import json, os; print(json.dumps({{'images_per_s': len(os.environ.get('GLIBC_TUNABLES', ''))}}))"
    monkeypatch.setenv('GLIBC_TUNABLES', 'glibc.malloc.check=0')
    assert benchmark.run_peer(f'{sys.executable} -c "{tunables}"', 'artifacts', 16) == 20
    monkeypatch.setenv(startup.RESTARTED, '1')
    assert benchmark.run_peer(f'{sys.executable} -c "{tunables}"', 'artifacts', 16) == 0
    with pytest.raises(configuration.ConfigError, match="ended with status 3 and 'nothing'"):
        benchmark.run_peer(f'{sys.executable} -c "raise SystemExit(3)"', 'artifacts', 16)


def test_a_ratio_is_of_medians_over_the_rounds(monkeypatch):
    rounds = iter([(90.0, 50.0), (60.0, 69.0), (70.0, 80.0)])  # the round of the median has another rate with data
    names = ('images_per_s', 'with_data')
    monkeypatch.setattr(measure, 'measure_stage', lambda *args, **options: dict(zip(names, next(rounds))))
    monkeypatch.setattr(measure, 'load_train_batches', lambda config: iter(()))
    peers = iter([50.0, 30.0, 35.0])
    monkeypatch.setattr(benchmark, 'run_peer', lambda *args: next(peers))
    options = types.SimpleNamespace(data=True, rounds=3, steps=1, peer='other')
    row = benchmark._measure_stage(autoencoder, demo.get_config(), options, {})
    assert (row['images_per_s'], row['with_data'], row['peer'], row['ratio']) == (70.0, 69.0, 35.0, 2.0)


@pytest.mark.nightly
def test_command_measures_and_saves(tmp_path):
    out = tmp_path / 'benchmark.json'
    arguments = ['--config=configs/demo.py', '--stages=autoencoder', '--batch=4,8', '--steps=1', f'--out={out}']
    run = subprocess.run(
        [sys.executable, '-m', 'artifacts_jax.benchmark', *arguments],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(out.read_text())
    assert [row['batch'] for row in results['stages']] == [4, 8]
    assert run.stdout.strip() == benchmark.table(results).strip()


def test_the_input_pipeline_is_compared_with_a_peer(monkeypatch):
    rates = iter([100.0, 300.0, 200.0])
    monkeypatch.setattr(measure, 'measure_pipeline', lambda config: {'memory': 9000.0, 'stream': next(rates)})
    monkeypatch.setattr(
        benchmark, 'run_peer', lambda template, stage, batch: {('{stage}', 'data', 128): 160.0}[template, stage, batch]
    )
    options = types.SimpleNamespace(rounds=3, peer='{stage}', stages=['data'])
    found = benchmark._measure_pipeline(default.get_config(), options)
    assert {name: x for name, x in found.items() if name != 'rounds'} == {
        'memory': 9000, 'stream': 200, 'peer': 160, 'ratio': 1.25
    }  # fmt: skip
    machine = {'device': 'cpu', 'matmul_flops': 1e9, 'convolution_flops': 1e9, 'copy_bytes': 1e9}
    results = {'machine': machine, 'devices': 1, 'versions': '', 'dtype': '', 'stages': [], 'host_peak_bytes': 1}
    text = benchmark.table({**results, 'pipeline': found})
    assert 'input pipeline, peer: 160 images/s' in text
    assert 'ratio of stream to peer: 1.25' in text
    assert '| batch |' not in text
