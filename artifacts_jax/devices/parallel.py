"""The one place that decides how pure functions are mapped over devices: jit over a mesh, or pmap.

On each device, a step computes the device's share of every global sum; the sum of the shares over the devices is the
global value. `mean`, `total` and `share` compute them. Under jit (axis_name None) the batch is one global array, and a
share is the global value itself.
"""

from collections.abc import Callable
from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, Float, Num, PyTree, Shaped

from artifacts_jax.config import ConfigError
from artifacts_jax.devices import processes

AXIS = 'data'


def total(tree: PyTree, axis_name: str | None) -> PyTree:
    """Returns the sum of every leaf over the devices."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def share(x: Num[Array, '*shape'], axis_name: str | None) -> Num[Array, '*shape']:
    """Returns x divided by the number of devices, for a value that is the same on every device."""
    return x if axis_name is None else x / jax.lax.psum(1, axis_name)


def mean(x: Float[Array, '...'], axis_name: str | None) -> Float[Array, '']:
    """Returns this device's share of the mean of x over the global batch."""
    return share(x.mean(), axis_name)


def gather(x: Shaped[Array, 'b ...'], axis_name: str | None) -> Shaped[Array, 'B ...']:
    """Returns the global batch of x: the shards of all devices, concatenated."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def accumulate(function: Callable, count: int, batch: PyTree) -> PyTree:
    """Returns the mean of function(microbatch) over `count` microbatches, computed in turn to save memory.

    Microbatch j has the examples j, j + count, ...: equally many from each device, so that no example moves between
    devices. If the function returns means over the batch and their gradients, the result equals that of the whole
    batch, except for batch statistics, which each microbatch has of its own.

    Args:
      function: maps a microbatch, a tree of [B / count, ...] arrays, to a tree of arrays.
      count: the number of microbatches; 1 returns function(batch).
      batch: a tree of [B, ...] arrays; leaves may be None.
    """
    if count == 1:
        return function(batch)
    batch = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), batch)

    def add(j, sums):
        microbatch = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, j, 1, keepdims=False), batch)
        return jax.tree.map(jnp.add, sums, function(microbatch))

    first = function(jax.tree.map(lambda x: x[:, 0], batch))
    if jax.default_backend() == 'cpu':  # XLA computes a convolution's gradient 20 times slower in a loop on CPU
        sums = reduce(lambda sums, j: add(j, sums), range(1, count), first)
    else:
        sums = jax.lax.fori_loop(1, count, add, first)
    return jax.tree.map(lambda x: x / count, sums)


class Devices:
    """The devices of a run and the mapping over them.

    Args:
      mapping: 'jit' or 'pmap' (`config.parallel`).
      devices: the devices to use, all by default.
    """

    def __init__(self, mapping: str, devices: list | None = None):
        self.mapping = mapping
        # The hosts' shards of a global batch are concatenated in the order of the processes, so devices are sorted so.
        self.devices = sorted(
            devices or processes.global_devices(), key=lambda device: (device.process_index, device.id)
        )
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        mesh = Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    def check_batch(self, name: str, batch_size: int, microbatches: int = 1) -> None:
        """Raises ConfigError if a global batch size is not divisible by the devices; the message has the nearest valid.

        Args:
          name: the configuration key of the batch size.
          batch_size: its value.
          microbatches: how many each device splits its examples into (`accumulate`).
        """
        count = len(self.devices) * microbatches
        if batch_size % count:
            nearest = max(1, round(batch_size / count)) * count
            times = f' times accumulate={microbatches}' if microbatches > 1 else ''
            raise ConfigError(
                f'{name}={batch_size} is not divisible by the {len(self.devices)} devices{times}; use {nearest}'
            )

    def put(self, batch: PyTree) -> PyTree:
        """Puts this host's shard of a batch, a tree of [b, ...] arrays, on its devices."""
        if self.mapping == 'pmap':
            return jax.tree.map(lambda x: x.reshape(len(self.local), -1, *x.shape[1:]), batch)
        return jax.tree.map(partial(jax.make_array_from_process_local_data, self.sharded), batch)

    def train_step(self, step: Callable) -> Callable:
        """Maps step(state, batch, key, *, axis_name) -> (state, metrics) over the devices; batches come from `put`."""
        if self.mapping == 'pmap':
            mapped = partial(step, axis_name=AXIS)
            return jax.pmap(mapped, AXIS, in_axes=(None, 0, None), out_axes=None, devices=self.devices)
        return jax.jit(
            partial(step, axis_name=None),
            in_shardings=(self.replicated, self.sharded, self.replicated),
            out_shardings=self.replicated,
            donate_argnums=0,
            compiler_options=compiler_options(self.devices[0].platform),
        )

    def to_global(self, tree: PyTree) -> PyTree:
        """Returns a train step's outputs as arrays on the devices of all hosts; pmap returns those of one host."""
        if self.mapping == 'jit' or len(self.local) == len(self.devices):
            return tree
        return jax.tree.map(
            lambda x: jax.make_array_from_single_device_arrays(
                x.shape, self.replicated, [shard.data for shard in x.addressable_shards]
            ),
            tree,
        )

    def per_example(self, function: Callable) -> Callable:
        """Maps function(variables, batch) -> tree of [B, ...] over the devices.

        Returns:
          a function of (variables, a host's shard of a batch). It returns NumPy arrays with the valid examples of all
          hosts, concatenated; batch['valid'] marks them. All hosts must call it together, with shards of equal size,
          which is padded to a multiple of the devices.
        """

        def apply(variables, batch, axis_name=None):
            values = function(variables, batch), batch['valid']
            return jax.tree.map(partial(gather, axis_name=axis_name), values)

        if self.mapping == 'pmap':
            named = partial(apply, axis_name=AXIS)
            mapped = jax.pmap(named, AXIS, in_axes=(None, 0), out_axes=None, devices=self.devices)
        else:
            mapped = jax.jit(
                apply,
                in_shardings=(self.replicated, self.sharded),
                out_shardings=self.replicated,
                compiler_options=compiler_options(self.devices[0].platform),
            )

        def run(variables, batch):
            size = len(jax.tree.leaves(batch)[0])
            padding = -size % len(self.local)
            batch = {'valid': np.ones(size, bool), **batch}
            padded = jax.tree.map(lambda x: np.pad(x, ((0, padding),) + ((0, 0),) * (x.ndim - 1)), batch)
            values, valid = jax.device_get(mapped(variables, self.put(padded)))
            return jax.tree.map(lambda x: x[valid], values)

        return run


@cache
def compiler_options(platform: str) -> dict[str, str]:
    """Returns the XLA options of jit for a platform.

    On CPU they select YNNPACK for matrix products and sums, where it is fastest. Convolutions stay with Eigen: YNNPACK
    uses one core for few channels, and takes twice as long for the gradients of kernels.
    """
    if platform != 'cpu':
        return {}
    names = ('INDIVIDUAL_DOT', 'REDUCE')
    options = {'xla_cpu_experimental_ynn_fusion_type': ','.join(f'LIBRARY_FUSION_TYPE_{name}' for name in names)}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # this version of XLA lacks the option
        return {}
    return options


def shape_tree(tree: PyTree, sharding: Sharding | None = None) -> PyTree:
    """Returns the tree with a ShapeDtypeStruct of the given sharding in place of every array."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=sharding), tree)
