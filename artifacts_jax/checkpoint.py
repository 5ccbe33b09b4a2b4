"""Checkpoints of a stage, through Orbax: by step, asynchronous, with variables, optimiser and config apart."""

import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from artifacts_jax.parallel import shape_tree
from artifacts_jax.state import State


class CheckpointError(Exception):
    """A checkpoint that is missing or does not hold what it should."""


class Checkpoints:
    """The checkpoints of one stage; use it as a context, which ends with every save on disk.

    Each has three items: 'variables' (parameters and statistics, trained and frozen, all that transfer needs),
    'training' (step, optimiser states, moving average and history) and 'config' (JSON).

    Args:
      folder: holds one folder for each step, named by the steps completed.
      config: the run's configuration, saved beside the state.
      sharding: how restored arrays are placed on the current devices.
    """

    def __init__(self, folder: Path, config: ConfigDict, sharding=None):
        self.folder = Path(folder).absolute()
        self._config = json.loads(config.to_json_best_effort())
        self._sharding = sharding
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                'variables': ocp.StandardCheckpointHandler(),
                'training': ocp.StandardCheckpointHandler(),
                'config': ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(config.keep_checkpoints)
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The steps completed at the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: State) -> None:
        """Starts to save the state after `step` steps; saving a step again does nothing."""
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            variables=ocp.args.StandardSave(state.variables),
            training=ocp.args.StandardSave(_training(state)),
            config=ocp.args.JsonSave(self._config),
        )
        self._manager.save(step, args=args)

    def restore(self, target: State, *, training: bool = True) -> State:
        """Returns the newest state; `target` gives the shapes and types, as from jax.eval_shape.

        Args:
          target: what is wanted.
          training: False leaves out optimiser states, moving average and history, which less can go wrong with: the
            state is good for everything but training, and may have been trained by another version of the program.

        Raises:
          CheckpointError: the checkpoint cannot be read as this state; the message says why.
        """
        items = {'variables': target.variables, **({'training': _training(target)} if training else {})}
        restored = self._restore(items)
        variables = restored['variables']
        rest = restored.get('training') or {'step': self.latest_step, 'opt_state': {}, 'ema': None, 'history': None}
        frozen = target.frozen and {
            kind: {network: variables[kind][network] for network in tree} for kind, tree in target.frozen.items()
        }
        return target.replace(
            params={n: variables['params'][n] for n in target.params},
            batch_stats={n: variables['batch_stats'][n] for n in target.batch_stats},
            frozen=frozen,
            **rest,
        )

    def _restore(self, items):
        step = self.latest_step
        if step is None:
            raise CheckpointError(f'no checkpoint in {self.folder}: run the stage that writes it first')
        where = self.folder / str(step)
        args = {name: ocp.args.StandardRestore(shape_tree(tree, self._sharding)) for name, tree in items.items()}
        try:
            saved = self._manager.item_metadata(step)['variables']
            different = [] if saved is None else differences(saved.tree, items['variables'])
            if not different:
                return self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:
            reason = str(error).split(' [tensorstore_spec=')[0]  # a description of the whole storage
            raise CheckpointError(f'checkpoint {where} cannot be restored: {reason}') from error
        raise CheckpointError(f'{where} was written by another architecture:\n  ' + '\n  '.join(different))


def differences(saved, wanted) -> list[str]:
    """Returns a line for each leaf that two trees of arrays (or of their shapes) do not share."""
    saved, wanted = (
        {jax.tree_util.keystr(path, simple=True, separator='/'): tuple(x.shape) for path, x in leaves}
        for leaves in map(jax.tree_util.tree_leaves_with_path, (saved, wanted))
    )
    return [
        f'{name}: {saved.get(name, "nothing")} saved, {wanted.get(name, "nothing")} wanted'
        for name in sorted(saved | wanted)
        if saved.get(name) != wanted.get(name)
    ]


def _training(state):
    return {'step': state.step, 'opt_state': state.opt_state, 'ema': state.ema, 'history': state.history}
