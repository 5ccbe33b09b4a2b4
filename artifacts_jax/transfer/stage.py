"""The base class of the stages that transfer tasks train: networks on top of the trunk."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import optax
from jaxtyping import Array, Key, PyTree
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import Devices, accumulate, total
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import keys
from artifacts_jax.training.state import State


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkStage:
    """A stage for loop.run. The subclass of a task implements the methods that raise NotImplementedError.

    It may override the other methods. A pretext task trains the trunk from random weights: it sets BASE = None.
    """

    NAME: str  # also the name of its folder in the work directory
    evaluate_fn: Callable | None = (
        None  # evaluate_fn(variables, dataset, limit=0): predictions, or counts of correct ones
    )

    BASE: ClassVar[Any] = artifacts  # the stage whose trunk this stage starts from
    PROGRESS_METRICS: ClassVar[dict] = {}  # {heading: metric name} of the values printed during training
    ACCUMULATES: ClassVar[bool] = False  # whether a step splits its batch into `config.accumulate` microbatches
    GRAD_NORMS: ClassVar[str] = 'all'  # logs one gradient norm of 'all' networks, or one 'per_network'

    def get_steps_and_batch_size(self, config: ConfigDict) -> tuple[int, int]:
        """Returns (number of steps, images in a global batch)."""
        raise NotImplementedError

    def init_variables(self, key: Key[Array, ''], trunk: dict | None, config: ConfigDict) -> tuple[dict, dict | None]:
        """Returns the variables at step 0: (trained, frozen).

        Both have the form {'params': {network: tree}, 'batch_stats': {network: tree}}; `frozen` may be None.

        Args:
          key: random key for the new layers.
          trunk: the variables of the trunk; None if BASE is None.
          config: the run's configuration.
        """
        raise NotImplementedError

    def make_optimiser(self, config: ConfigDict) -> optax.GradientTransformation:
        """Returns the optimiser of all trained networks."""
        raise NotImplementedError

    def is_trained(self, path: tuple, config: ConfigDict) -> bool:
        """Returns whether training updates the parameter at this path of the tree of trained networks."""
        del path, config
        return True

    def prepare_inputs(
        self,
        variables: dict,
        batch: dict,
        key: Key[Array, ''],
        step: Array,
        *,
        config: ConfigDict,
        axis_name: str | None,
    ) -> PyTree:
        """Returns the inputs of `compute_losses` for a batch: a tree of [B, ...] arrays.

        Args:
          variables: the variables of all networks.
          batch: this device's shard of the batch.
          key: the stage's random key.
          step: number of completed steps.
          config: the run's configuration.
          axis_name: the pmap axis of the devices; None without pmap.
        """
        raise NotImplementedError

    def compute_losses(
        self, variables: dict, inputs: PyTree, *, config: ConfigDict, axis_name: str | None
    ) -> tuple[dict[str, Array], dict]:
        """Returns ({name: this device's share of a value}, new batch_stats of the trained networks).

        The shares of all devices add up to the value. Training minimises the sum of the values named 'loss/...'.

        Args:
          variables: the variables of all networks.
          inputs: the result of `prepare_inputs`, or a microbatch of it.
          config: the run's configuration.
          axis_name: the pmap axis of the devices; None without pmap.
        """
        raise NotImplementedError

    def initialise_params(
        self, key: Key[Array, ''], params: dict, config: ConfigDict, devices: Devices, dataset: Any
    ) -> dict | None:
        """Returns the parameters after data-dependent initialisation; None keeps `params` unchanged.

        Args:
          key: random key of the initialisation.
          params: the parameters of all networks, at step 0.
          config: the run's configuration.
          devices: the mapping over devices.
          dataset: the training images.
        """
        del key, params, config, devices, dataset
        return None

    def compute_metrics(self, outputs: Any, dataset: Any) -> dict[str, float]:
        """Returns {name: value}: the metrics of the outputs of `evaluate_fn` for a data set."""
        raise NotImplementedError

    def plot(self, state: State, dataset: Any, folder: Path | None) -> None:
        """Writes figures of the first test images into a folder; does nothing if it is None. Default: no figures."""

    def sample_batch(self, config: ConfigDict) -> dict:
        """Returns a host batch of `config.batch_size` random examples, for the benchmark."""
        raise NotImplementedError

    def time_components(self, config: ConfigDict, batch: dict, steps: int) -> dict[str, float]:
        """Returns {component of a step: seconds on one device}, for the benchmark. Default: no components."""
        del config, batch, steps
        return {}

    def init_state(self, key: Key[Array, ''], base: dict | None, *, config: ConfigDict) -> State:
        """Returns the state at step 0, before `initialise_from_data`.

        Args:
          key: random key for the new layers.
          base: variables that contain the network 'discriminator'; this stage starts from its trunk.
          config: the run's configuration.
        """
        trunk = base and {kind: tree['trunk'] for kind, tree in artifacts.select_discriminator(base).items()}
        trained, frozen = self.init_variables(key, trunk, config)
        optimisers = {tuple(trained['params']): self.make_optimiser(config)}
        return State.create(trained, optimisers, ema=False, frozen=frozen)

    def initialise_from_data(self, state: State, *, config: ConfigDict, devices: Devices, datasets: dict) -> State:
        """Returns the state at step 0 after data-dependent initialisation."""
        key, params = keys.stage_key(config.seed, f'{self.NAME}/rescale'), jax.device_get(state.variables['params'])
        params = self.initialise_params(key, params, config, devices, datasets['train'])
        if params is None:
            return state
        frozen = state.frozen or {'params': {}}
        trained, fixed = (
            jax.device_put(jax.device_get({name: params[name] for name in tree}), devices.replicated)
            for tree in (state.params, frozen['params'])
        )
        return state.replace(params=trained, frozen=state.frozen and {**state.frozen, 'params': fixed})

    def train_step(
        self, state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
    ) -> tuple[State, dict]:
        """Updates the parameters once.

        Args:
          state: the state of this stage.
          batch: this device's shard of the batch.
          key: the stage's random key.
          config: the run's configuration.
          axis_name: the pmap axis of the devices; None without pmap.

        Returns:
          (new state, {name: scalar}).
        """
        variables, options = state.variables, {'config': config, 'axis_name': axis_name}

        def compute_loss(params, microbatch):
            params = jax.tree_util.tree_map_with_path(
                lambda path, x: x if self.is_trained(path, config) else jax.lax.stop_gradient(x), params
            )
            all_variables = {**variables, 'params': {**variables['params'], **params}}
            values, batch_stats = self.compute_losses(all_variables, microbatch, **options)
            return sum(x for name, x in values.items() if name.startswith('loss/')), (values, batch_stats)

        compute_gradients = partial(jax.grad(compute_loss, has_aux=True), state.params)
        inputs = self.prepare_inputs(variables, batch, key, state.step, **options)
        microbatches = config.accumulate if self.ACCUMULATES else 1
        grads, (values, batch_stats) = accumulate(compute_gradients, microbatches, inputs)
        grads, values = total((grads, values), axis_name)
        new_state = state.apply_gradients(self.make_optimiser(config), grads).replace(
            step=state.step + 1, batch_stats={name: batch_stats[name] for name in state.batch_stats}
        )
        norms = {'all': grads} if self.GRAD_NORMS == 'all' else grads
        return new_state, {**values, **{f'grad_norm/{name}': optax.tree.norm(tree) for name, tree in norms.items()}}

    def make_evaluator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns evaluate(state, key) -> {name: value} on the first `config.eval_examples` (0: all) test images."""
        del devices

        def evaluate(state, key):
            del key
            outputs = self.evaluate_fn(state.variables, datasets['test'], limit=config.eval_examples)
            return self.compute_metrics(outputs, datasets['test'])

        return evaluate

    def make_plotter(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns plot(state, key, folder), which writes figures of test images."""
        del config, devices
        return lambda state, key, folder: self.plot(state, datasets['test'], folder)
