import itertools
import subprocess
import sys

import jax
import pytest

from artifacts_jax.devices import parallel
from artifacts_jax.pretraining import autoencoder
from artifacts_jax.training import measure

LIMITS = {'matmul_flops': 1e12, 'convolution_flops': 1e11, 'copy_bytes': 1e10}


@pytest.mark.slow
def test_measure_stage_with_and_without_data(config, batch):
    counter = itertools.count()
    labelled = {**batch, 'label': batch['index']}
    batches = ((next(counter), labelled)[1] for _ in itertools.count())
    before, events = jax.config.jax_compilation_cache_dir, []
    jax.monitoring.register_event_listener(lambda event, **values: events.append(event))
    row = measure.measure_stage(
        autoencoder, config, steps=2, limits=LIMITS, sample=autoencoder.sample_batch(config), batches=batches
    )
    minimum, median, maximum = row['step_s']
    assert 0 < minimum <= median <= maximum
    assert row['images_per_s'] == pytest.approx(config.batch_size / median)
    assert next(counter) == 4  # each step reads one batch: two warm-up steps, two timed steps
    assert row['with_data'] > 0
    assert min(row['compile_s'], row['compile_cached_s']) > 0
    assert '/jax/compilation_cache/cache_hits' in events  # from the second compilation
    assert row['flops'] > 1e6
    assert row['memory_bytes'] > 1e5
    min_seconds = max(row['flops'] / LIMITS['matmul_flops'], row['bytes'] / LIMITS['copy_bytes'])
    assert row['roofline'] == pytest.approx(min_seconds / median)
    rate = row['direct_flops'] / median / len(jax.devices())
    assert row['convolution_share'] == pytest.approx(rate / LIMITS['convolution_flops'])
    assert jax.config.jax_compilation_cache_dir == before


@pytest.mark.nightly
def test_throughput_of_the_machine_is_plausible():
    limits = measure.measure_machine('float32')
    assert limits['device'] == jax.devices()[0].device_kind
    for name in LIMITS:
        assert 1e8 < limits[name] < 1e16, name


def test_pipeline_is_measured_from_memory_and_streamed(config, photograph_folder):
    config.data.name = str(photograph_folder)
    assert all(rate > 0 for rate in measure.measure_pipeline(config, seconds=0.05).values())


@pytest.mark.slow
def test_synthetic_data_need_no_tensorflow():
    program = (
        'import sys; from artifacts_jax import benchmark, pipeline; from artifacts_jax.training import measure;'
        " print('tensorflow' in sys.modules)"
    )
    run = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == 'False'


def test_unknown_compiler_options_are_not_used(monkeypatch):
    def refuse(*arguments, **options):
        raise jax.errors.JaxRuntimeError('No such compile option')

    assert parallel.compiler_options('gpu') == {}
    parallel.compiler_options.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(jax, 'jit', refuse)
        assert parallel.compiler_options('cpu') == {}
    parallel.compiler_options.cache_clear()
