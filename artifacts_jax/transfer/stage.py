"""The training of a network on the trunk, as the loop runs it: what the tasks have in common."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import optax
from jaxtyping import Array, Key, PyTree
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import Devices, accumulated, total
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import keys
from artifacts_jax.training.state import State


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrunkStage:
    """One training, as loop.run takes it. A task's subclass supplies what differs: the methods that raise, and others.

    A pretext task, which trains the trunk from its first weights, has BASE = None.
    """

    NAME: str  # also its folder
    predict: Callable | None = None  # predict(variables, dataset, limit=0), of test images, for evaluation

    BASE: ClassVar[Any] = artifacts
    SHOWN: ClassVar[dict] = {}  # {heading: name}, of what is evaluated during training
    ACCUMULATES: ClassVar[bool] = False  # whether a step takes its batch in `config.accumulate` parts
    NORMS: ClassVar[str] = 'all'  # whose gradients' norms are logged: 'all' together, or 'each' network's

    def plan(self, config: ConfigDict) -> tuple[int, int]:
        """Returns (steps, images in a global batch)."""
        raise NotImplementedError

    def first_variables(self, key: Key[Array, ''], trunk: dict | None, config: ConfigDict) -> tuple[dict, dict | None]:
        """Returns the variables at step 0, (trained, frozen), {'params': {network: tree}, 'batch_stats': ...} each.

        Args:
          key: draws new layers.
          trunk: the variables of the trunk, None where BASE is None.
          config: the run's configuration.
        """
        raise NotImplementedError

    def optimiser(self, config: ConfigDict) -> optax.GradientTransformation:
        """Returns the optimiser of all trained networks."""
        raise NotImplementedError

    def learns(self, path: tuple, config: ConfigDict) -> bool:
        """Returns whether the parameter at a path of the trained networks' trees is trained."""
        del path, config
        return True

    def inputs(
        self,
        variables: dict,
        batch: dict,
        key: Key[Array, ''],
        step: Array,
        *,
        config: ConfigDict,
        axis_name: str | None,
    ) -> PyTree:
        """Returns what `loss` takes of a batch: a tree of [B, ...] arrays.

        Args:
          variables: of all networks.
          batch: this device's part of it.
          key: the stage's key.
          step: updates done.
          config: the run's configuration.
          axis_name: the devices' axis under pmap.
        """
        raise NotImplementedError

    def loss(
        self, variables: dict, inputs: PyTree, *, config: ConfigDict, axis_name: str | None
    ) -> tuple[dict[str, Array], dict]:
        """Returns ({name: this device's share of a value}, the new batch_stats of the trained networks).

        Those named 'loss/...' are minimised, their sum. Arguments as of `inputs`.
        """
        raise NotImplementedError

    def initialise(
        self, key: Key[Array, ''], params: dict, config: ConfigDict, devices: Devices, dataset: Any
    ) -> dict | None:
        """Returns the parameters with layers initialised by training images; None leaves them as they are.

        Args:
          key: draws what is drawn.
          params: of all networks, at step 0.
          config: the run's configuration.
          devices: the mapping over devices.
          dataset: the training images.
        """
        del key, params, config, devices, dataset

    def measure(self, predicted: Any, dataset: Any) -> dict[str, float]:
        """Returns {name: value} of what `predict` has returned for images of a data set."""
        raise NotImplementedError

    def draw(self, state: State, dataset: Any, folder: Path | None) -> None:
        """Writes figures of the first test images to a folder, None: nothing; most tasks have the loop's curves."""

    def sample_batch(self, config: ConfigDict) -> dict:
        """Returns a host batch of noise as large as `config.batch_size`, for the benchmark."""
        raise NotImplementedError

    def measure_parts(self, config: ConfigDict, batch: dict, steps: int) -> dict[str, float]:
        """Returns {part of a step: seconds on one device}, for the benchmark; most tasks have none."""
        del config, batch, steps
        return {}

    def init_state(self, key: Key[Array, ''], base: dict | None, *, config: ConfigDict) -> State:
        """Returns the state at step 0, before `prepare`.

        Args:
          key: draws new layers.
          base: variables with the network 'discriminator', whose trunk this one starts from.
          config: the run's configuration.
        """
        trunk = base and {kind: tree['trunk'] for kind, tree in artifacts.discriminator(base).items()}
        trained, frozen = self.first_variables(key, trunk, config)
        optimisers = {tuple(trained['params']): self.optimiser(config)}
        return State.create(trained, optimisers, ema=False, frozen=frozen)

    def prepare(self, state: State, *, config: ConfigDict, devices: Devices, datasets: dict) -> State:
        """Returns the state at step 0 with what depends on the training images."""
        key, params = keys.stage_key(config.seed, f'{self.NAME}/rescale'), jax.device_get(state.variables['params'])
        params = self.initialise(key, params, config, devices, datasets['train'])
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
        """One update.

        Args:
          state: of this stage.
          batch: this device's part of it.
          key: the stage's key.
          config: the run's configuration.
          axis_name: the devices' axis under pmap.

        Returns:
          (state, {name: scalar}).
        """
        variables, options = state.variables, {'config': config, 'axis_name': axis_name}

        def loss(params, part):
            params = jax.tree_util.tree_map_with_path(
                lambda path, x: x if self.learns(path, config) else jax.lax.stop_gradient(x), params
            )
            values, batch_stats = self.loss({**variables, 'params': {**variables['params'], **params}}, part, **options)
            return sum(x for name, x in values.items() if name.startswith('loss/')), (values, batch_stats)

        gradients = partial(jax.grad(loss, has_aux=True), state.params)
        inputs = self.inputs(variables, batch, key, state.step, **options)
        grads, (values, batch_stats) = accumulated(gradients, config.accumulate if self.ACCUMULATES else 1, inputs)
        grads, values = total((grads, values), axis_name)
        new = state.descend(self.optimiser(config), grads).replace(
            step=state.step + 1, batch_stats={name: batch_stats[name] for name in state.batch_stats}
        )
        norms = {'all': grads} if self.NORMS == 'all' else grads
        return new, {**values, **{f'grad_norm/{name}': optax.tree.norm(tree) for name, tree in norms.items()}}

    def evaluator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns evaluate(state, key) -> {name: value} of some of the test images."""
        del devices

        def evaluate(state, key):
            del key
            predicted = self.predict(state.variables, datasets['test'], limit=config.eval_examples)
            return self.measure(predicted, datasets['test'])

        return evaluate

    def illustrator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns draw(state, key, folder), which writes figures of test images."""
        del config, devices
        return lambda state, key, folder: self.draw(state, datasets['test'], folder)
