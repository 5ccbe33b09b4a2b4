"""The training state of a stage."""

from collections.abc import Iterable
from typing import Any

import flax.struct
import jax.numpy as jnp
import optax


class State(flax.struct.PyTreeNode):
    """The state of a stage. `step` is the number of completed updates, and the number of the next step.

    The trees `params` and `batch_stats` have one entry per trained network.
    """

    step: Any  # int32 scalar
    params: Any  # trained parameters, {network: tree}
    batch_stats: Any  # running averages of batch norm, {network: tree}
    opt_state: Any  # {names of the networks of an optimiser, joined by +: optax state}
    ema: Any = None  # exponential moving average of params, or None
    history: Any = None  # buffer of earlier fakes (history.py), or None
    frozen: Any = None  # variables that are not trained: {'params': ..., 'batch_stats': ...}

    @classmethod
    def create(cls, variables: dict, optimisers: dict, *, ema: bool, frozen: dict | None = None) -> 'State':
        """Returns the state at step 0.

        Args:
          variables: {'params': {network: tree}, 'batch_stats': {network: tree}} of the trained networks.
          optimisers: {tuple of networks: their optax optimiser}.
          ema: whether to keep a moving average of the parameters.
          frozen: variables of frozen networks, in the form of `variables`.
        """
        state = cls(jnp.zeros((), jnp.int32), variables['params'], variables['batch_stats'], {}, frozen=frozen)
        if ema:
            state = state.replace(ema=state.params)
        for networks, optimiser in optimisers.items():
            opt_state = optimiser.init({n: state.params[n] for n in networks})
            state = state.replace(opt_state={**state.opt_state, _name(networks): opt_state})
        return state

    def apply_gradients(self, optimiser: optax.GradientTransformation, grads: dict) -> 'State':
        """Returns the state after the optimiser updates the networks of grads, {network: tree}."""
        name, params = _name(grads), {n: self.params[n] for n in grads}
        updates, opt_state = optimiser.update(grads, self.opt_state[name], params)
        return self.replace(
            params={**self.params, **optax.apply_updates(params, updates)},
            opt_state={**self.opt_state, name: opt_state},
        )

    def get_trained_variables(self, use_ema: bool) -> dict:
        """Returns all variables for later stages; with `use_ema`, the moving average replaces the parameters."""
        return (self.replace(params=self.ema) if use_ema else self).variables

    @property
    def variables(self) -> dict:
        """All variables, trained and frozen, in the form that Flax's `apply` takes."""
        frozen = self.frozen or {'params': {}, 'batch_stats': {}}
        return {
            'params': {**frozen['params'], **self.params},
            'batch_stats': {**frozen['batch_stats'], **self.batch_stats},
        }


def select(variables: dict, networks: Iterable[str]) -> dict:
    """Returns the variables of the networks named in `networks`: {kind: {network: tree}}."""
    return {kind: {name: tree[name] for name in networks if name in tree} for kind, tree in variables.items()}


def _name(networks):
    # Sorted, because jax.tree.map sorts the keys of dictionaries.
    return '+'.join(sorted(networks))
