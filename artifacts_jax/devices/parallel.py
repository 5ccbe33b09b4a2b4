"""The one place that decides how pure functions are mapped over devices: jit over a mesh, or pmap.

A step computes, on each device, its share of every global sum: shares add up over devices. `mean`, `total` and
`share` make them; under jit (axis_name None) the batch is one global array and a share is the whole.
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
    """Returns this device's equal share of a value that every device computes alike."""
    return x if axis_name is None else x / jax.lax.psum(1, axis_name)


def mean(x: Float[Array, '...'], axis_name: str | None) -> Float[Array, '']:
    """Returns this device's share of the mean of x over the global batch."""
    return share(x.mean(), axis_name)


def gather(x: Shaped[Array, 'b ...'], axis_name: str | None) -> Shaped[Array, 'B ...']:
    """Returns the global batch of x, the devices' parts one after another."""
    return x if axis_name is None else jax.lax.all_gather(x, axis_name, tiled=True)


def accumulated(function: Callable, count: int, batch: PyTree) -> PyTree:
    """Returns the mean of function(part) over `count` equal parts of a batch, one after another, in less memory.

    Part j has the examples j, j + count, ..., of each device as many, so that none moves. With means as its values
    and their gradients, the function gives those of the whole batch, but for what it takes from the part's statistics.

    Args:
      function: maps a part, a tree of [B / count, ...], to a tree of arrays.
      count: the number of parts; with 1, function(batch) is returned as it is.
      batch: a tree of [B, ...] arrays, None where there is nothing.
    """
    if count == 1:
        return function(batch)
    batch = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), batch)

    def add(j, sums):
        part = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, j, 1, keepdims=False), batch)
        return jax.tree.map(jnp.add, sums, function(part))

    first = function(jax.tree.map(lambda x: x[:, 0], batch))
    if jax.default_backend() == 'cpu':  # on which XLA takes a convolution's gradient twenty times slower in a loop
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
        # A global batch is its hosts' parts one after another, and so are the devices.
        self.devices = sorted(devices or processes.available(), key=lambda device: (device.process_index, device.id))
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        mesh = Mesh(np.array(self.devices), (AXIS,), axis_types=(AxisType.Auto,))
        self.replicated = NamedSharding(mesh, PartitionSpec())
        self.sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    def check_batch(self, name: str, batch_size: int, parts: int = 1) -> None:
        """Raises ConfigError if a global batch does not divide by the devices, naming the nearest that does.

        Args:
          name: the key of the configuration that is to blame.
          batch_size: its value.
          parts: parts that each device takes its examples in (`accumulated`).
        """
        count = len(self.devices) * parts
        if batch_size % count:
            nearest = max(1, round(batch_size / count)) * count
            times = f', {parts} times each (accumulate)' if parts > 1 else ''
            raise ConfigError(
                f'{name}={batch_size} does not divide by the {len(self.devices)} devices{times}: use {nearest}'
            )

    def put(self, batch: PyTree) -> PyTree:
        """Places this host's part of a batch, a tree of [b, ...] arrays, on its devices."""
        if self.mapping == 'pmap':
            return jax.tree.map(lambda x: x.reshape(len(self.local), -1, *x.shape[1:]), batch)
        return jax.tree.map(partial(jax.make_array_from_process_local_data, self.sharded), batch)

    def train_step(self, step: Callable) -> Callable:
        """Maps step(state, batch, key, *, axis_name) -> (state, metrics); takes batches from `put`."""
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

    def joined(self, tree: PyTree) -> PyTree:
        """Returns what a train step gave as arrays on the devices of all hosts: pmap's are on those of one."""
        if self.mapping == 'jit' or len(self.local) == len(self.devices):
            return tree
        return jax.tree.map(
            lambda x: jax.make_array_from_single_device_arrays(
                x.shape, self.replicated, [shard.data for shard in x.addressable_shards]
            ),
            tree,
        )

    def per_example(self, function: Callable) -> Callable:
        """Maps function(variables, batch) -> tree of [B, ...]; the result takes a host's part of a batch.

        It gives numpy arrays with the examples of all hosts, one host's after another's, but for those that the
        batch's 'valid' leaves out. Hosts call it together, with parts of one size, which may be any: they are padded to
        the devices.
        """

        def whole(variables, batch, axis_name=None):
            values = function(variables, batch), batch['valid']
            return jax.tree.map(partial(gather, axis_name=axis_name), values)

        if self.mapping == 'pmap':
            named = partial(whole, axis_name=AXIS)
            mapped = jax.pmap(named, AXIS, in_axes=(None, 0), out_axes=None, devices=self.devices)
        else:
            mapped = jax.jit(
                whole,
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
    """Returns XLA's options for jit on a platform: on CPU, which of its libraries does what.

    XLA's YNNPACK is the fastest for matrix products and sums. Its convolutions are left to Eigen: YNNPACK's use one
    core where there are few channels, and take twice as long for the gradients of kernels.
    """
    if platform != 'cpu':
        return {}
    names = ('INDIVIDUAL_DOT', 'REDUCE')
    options = {'xla_cpu_experimental_ynn_fusion_type': ','.join(f'LIBRARY_FUSION_TYPE_{name}' for name in names)}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # this XLA has no such option
        return {}
    return options


def shape_tree(tree: PyTree, sharding: Sharding | None = None) -> PyTree:
    """Returns the tree with every array as a ShapeDtypeStruct, placed by `sharding`."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype, sharding=sharding), tree)
