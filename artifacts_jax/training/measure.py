"""Measures the speed of training steps and of the data pipeline, and compares it with the peak rates of the machine."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import Devices, compiler_options
from artifacts_jax.training import keys


def measure_machine(dtype: str) -> dict:
    """Returns the measured peak rates of one device: {'device', 'matmul_flops', 'convolution_flops', 'copy_bytes'}.

    The rates are per second: the best of several products of square matrices, the best of several 3x3 convolutions
    (forward pass), and the sum of two arrays of 100 MB, which reads two arrays and writes one.
    """
    options = compiler_options(jax.devices()[0].platform)

    def seconds(function, *arguments):
        compiled = jax.jit(function, compiler_options=options).lower(*arguments).compile()
        return min(_time_call(lambda: compiled(*arguments)) for _ in range(10))

    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    products, convolutions = [], []
    for size in (1024, 2048, 4096):
        matrix = jnp.ones((size, size), dtype)
        products.append(2 * size**3 / seconds(jnp.matmul, matrix, matrix))
    for size, channels in ((48, 64), (24, 128), (12, 256)):
        x, kernel = jnp.ones((16, size, size, channels), dtype), jnp.ones((3, 3, channels, channels), dtype)
        convolutions.append(2 * x.size * 9 * channels / seconds(convolve, x, kernel))
    x = jnp.ones(25_000_000, jnp.float32)
    return {
        'device': jax.devices()[0].device_kind,
        'matmul_flops': max(products),
        'convolution_flops': max(convolutions),
        'copy_bytes': 3 * x.nbytes / seconds(jnp.add, x, x + 1),
    }


def measure_stage(
    module,
    config: ConfigDict,
    *,
    steps: int,
    limits: dict,
    sample: dict,
    batches: Iterator[dict] | None = None,
) -> dict:
    """Measures the training steps of a stage on all devices.

    Args:
      module: the stage, such as autoencoder or artifacts.
      config: the run's configuration; its batch_size is global.
      steps: the number of timed steps, after two untimed steps.
      limits: the peak rates of one device, from `measure_machine`.
      sample: a host batch, from the stage's sample_batch; it stays on the devices.
      batches: an iterator over host batches, to measure also the steps with data loading.

    Returns:
      A dictionary with:

      - 'images_per_s', at the median time of a step
      - 'step_s': [minimum, median, maximum]
      - 'compile_s' and 'compile_cached_s', without and with the compilation cache
      - 'flops' and 'bytes' of a step, by XLA's cost analysis
      - 'direct_flops': the flops of the same step with plain convolutions
      - 'memory_bytes': the arguments and intermediate results on one device
      - 'roofline': the minimum time for the flops or the bytes, divided by the median time
      - 'convolution_share': direct_flops per second, divided by the machine's rate of convolutions
      - 'with_data', if `batches` is not None: images per second if each batch is read and sent to the devices
    """
    devices, key = Devices(config.parallel), keys.stage_key(config.seed, module.NAME)
    devices.check_batch('batch_size', config.batch_size)
    base = module.BASE and _state(module.BASE, config, devices, key, None).variables
    state = _state(module, config, devices, key, base)
    batch = devices.put(sample)

    def compiled(config):
        return devices.train_step(partial(module.train_step, config=config)).lower(state, batch, key)

    with tempfile.TemporaryDirectory() as cache, _compilation_cache(cache):
        compile_s = _time_call(lambda: compiled(config).compile())
        jax.clear_caches()
        start = time.perf_counter()
        step = compiled(config).compile()
        compile_cached_s = time.perf_counter() - start
    direct = config.copy_and_resolve_references()
    direct.convolutions = 'direct'
    direct_flops = _analysis(compiled(direct).cost_analysis()).get('flops', 0.0)
    cost, memory = _analysis(step.cost_analysis()), step.memory_analysis()

    def times(batches):
        nonlocal state
        seconds = []
        for n in range(steps + 2):
            start = time.perf_counter()
            inputs = batch
            if batches is not None:
                host_batch = next(batches)
                inputs = devices.put(
                    {name: host_batch[name] for name in batch}
                )  # without other entries, such as labels
            state, values = step(state, inputs, key)
            jax.block_until_ready((state, values))
            if n >= 2:
                seconds.append(time.perf_counter() - start)
        return [min(seconds), statistics.median(seconds), max(seconds)]

    step_s = times(None)
    median, count = step_s[1], len(devices.devices)
    minimum = max(
        cost.get('flops', 0.0) / limits['matmul_flops'], cost.get('bytes accessed', 0.0) / limits['copy_bytes']
    )
    measured = {
        'images_per_s': config.batch_size / median,
        'step_s': step_s,
        'compile_s': compile_s,
        'compile_cached_s': compile_cached_s,
        'flops': cost.get('flops', 0.0),
        'bytes': cost.get('bytes accessed', 0.0),
        'direct_flops': direct_flops,
        'memory_bytes': memory.argument_size_in_bytes + memory.temp_size_in_bytes if memory else 0,
        'roofline': minimum / median,
        'convolution_share': direct_flops / median / count / limits['convolution_flops'],
    }
    if batches is not None:
        measured['with_data'] = config.batch_size / times(batches)[1]
    return measured


def measure_seconds(function: Callable, *arguments, steps: int) -> float:
    """Returns the median time of `steps` calls of a function compiled for one device, after two untimed calls."""
    compiled = jax.jit(function, compiler_options=compiler_options(jax.devices()[0].platform))
    return statistics.median([_time_call(lambda: compiled(*arguments)) for _ in range(steps + 2)][2:])


def measure_pipeline(config: ConfigDict, *, seconds: float = 3.0) -> dict:
    """Returns the images per second that the data pipeline sends to the devices: {'memory', 'stream'}."""
    rates, devices = {}, Devices(config.parallel)
    for loading in ('memory', 'stream'):
        config.data.loading = loading
        batches = load_train_batches(config)
        jax.block_until_ready(devices.put(next(batches)))  # the first batch starts the threads
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            jax.block_until_ready(devices.put(next(batches)))
            count += config.batch_size
        rates[loading] = count / (time.perf_counter() - start)
    return rates


def load_train_batches(config: ConfigDict) -> Iterator[dict]:
    """Returns an iterator over the host batches of the training split."""
    from artifacts_jax.data import splits

    return splits.load(config.data, config.data.train, seed=config.seed).train_batches(config.batch_size)


def make_noise_batch(config: ConfigDict) -> dict:
    """Returns a host batch of random images: 'image' uint8 [B, H, W, 3] and 'index' int32 [B]."""
    count, size = config.batch_size, config.data.size
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return {'image': images, 'index': np.arange(count, dtype=np.int32)}


def _state(module, config, devices, key, base):
    return jax.jit(partial(module.init_state, config=config), out_shardings=devices.replicated)(key, base)


@contextlib.contextmanager
def _compilation_cache(folder):
    """Uses a folder as JAX's compilation cache."""
    options = {'jax_compilation_cache_dir': folder, 'jax_persistent_cache_min_compile_time_secs': 0.0}
    before = {name: getattr(jax.config, name) for name in options}
    _configure(options)
    try:
        yield
    finally:
        _configure(before)


def _configure(options):
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX opens the cache only once, in the first folder


def _analysis(cost):
    """Returns XLA's cost analysis; older versions of JAX return it in a list."""
    return (cost[0] if isinstance(cost, list) else cost) or {}


def _time_call(function):
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start
