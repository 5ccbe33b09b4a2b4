"""What a stage carries from step to step."""

from collections.abc import Iterable
from typing import Any

import flax.struct
import jax.numpy as jnp
import optax


class State(flax.struct.PyTreeNode):
    """The state of a stage; `step` is the updates done, which is also the next step to run.

    The trees `params` and `batch_stats` have one branch for each network that the stage trains.
    """

    step: Any  # int32 scalar
    params: Any  # trained parameters, {network: tree}
    batch_stats: Any  # running averages of batch norm, {network: tree}
    opt_state: Any  # {networks of an optimiser: optax state}
    ema: Any = None  # moving average of params, or None
    history: Any = None  # earlier fakes (history.py), or None
    frozen: Any = None  # variables that are used and never changed: {'params': ..., 'batch_stats': ...}

    @classmethod
    def create(cls, variables: dict, optimisers: dict, *, ema: bool, frozen: dict | None = None) -> 'State':
        """Makes the state at step 0.

        Args:
          variables: {'params': {network: tree}, 'batch_stats': {network: tree}} of the trained networks.
          optimisers: {networks: optimiser}: the optax optimiser of each tuple of networks.
          ema: whether to keep a moving average of the parameters.
          frozen: variables of frozen networks, in the same form.
        """
        state = cls(jnp.zeros((), jnp.int32), variables['params'], variables['batch_stats'], {}, frozen=frozen)
        if ema:
            state = state.replace(ema=state.params)
        for networks, optimiser in optimisers.items():
            opt_state = optimiser.init({n: state.params[n] for n in networks})
            state = state.replace(opt_state={**state.opt_state, _name(networks): opt_state})
        return state

    def apply_gradients(self, optimiser: optax.GradientTransformation, grads: dict) -> 'State':
        """Returns the state after an update of the networks in grads, {network: tree}, by their optimiser."""
        name, params = _name(grads), {n: self.params[n] for n in grads}
        updates, opt_state = optimiser.update(grads, self.opt_state[name], params)
        return self.replace(
            params={**self.params, **optax.apply_updates(params, updates)},
            opt_state={**self.opt_state, name: opt_state},
        )

    def get_trained_variables(self, use_ema: bool) -> dict:
        """The variables that later stages build on: with the moving average of the parameters if asked."""
        return (self.replace(params=self.ema) if use_ema else self).variables

    @property
    def variables(self) -> dict:
        """All variables, trained and frozen, as a Flax `apply` takes them."""
        frozen = self.frozen or {'params': {}, 'batch_stats': {}}
        return {
            'params': {**frozen['params'], **self.params},
            'batch_stats': {**frozen['batch_stats'], **self.batch_stats},
        }


def select(variables: dict, networks: Iterable[str]) -> dict:
    """Returns the variables of some networks: {kind: {network: tree}} of those among `networks`."""
    return {kind: {name: tree[name] for name in networks if name in tree} for kind, tree in variables.items()}


def _name(networks):
    # Mappings over trees sort their keys.
    return '+'.join(sorted(networks))
