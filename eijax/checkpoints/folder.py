"""Save and restore a run: device arrays by orbax, host state as JSON, committed together.

See layout.py for the files. Frozen parameters of a policy with an adapter are written once and
serve every step; a folder of such steps is used like any other. Orbax's own CheckpointManager is not used: it deletes
old steps before a new one could be checked, and sweeps interrupted ones in a
background thread that outlives a short command.
"""

from collections.abc import Mapping
import json
import logging
from typing import Any

from etils import epath
import jax
import orbax.checkpoint as ocp

from eijax.checkpoints import layout
from eijax.errors import CheckpointError
from eijax.policy import lora


class _NoChatter(logging.Filter):
  """Drops what orbax tells absl's logger: what matters of it reaches the caller as an exception."""

  def filter(self, record: logging.LogRecord) -> bool:
    return 'orbax' not in record.pathname


_NO_CHATTER = _NoChatter()


class CheckpointFolder:
  """Owner of a run's checkpoints folder.

  Args:
    folder: created if it does not exist. What an interrupted save left in it is removed.
    keep: how many finished steps stay; older ones go once a newer one is committed.
    blocking: save() returns when the step is committed. If false, arrays are written while the run goes
      on, and the commit follows at the next save(), wait() or close().
  Raises:
    CheckpointError: the folder cannot be written.
  """

  def __init__(self, folder: epath.PathLike, *, keep: int = 2, blocking: bool = True):
    if keep < 1:
      raise ValueError(f'keep={keep} must be at least 1')
    self._folder = epath.Path(folder)
    self._keep = keep
    self._blocking = blocking
    self._pending = None  # (step, host state, arrays, whether there is a base) written but not committed.
    logging.getLogger('absl').addFilter(_NO_CHATTER)
    try:
      if jax.process_index() == 0:
        self._folder.mkdir(parents=True, exist_ok=True)
        probe = self._folder / '.writable'
        probe.write_text('')
        probe.unlink()
        layout.sweep(self._folder)
    except OSError as e:
      raise CheckpointError(f'checkpoints folder {self._folder} cannot be written ({_reason(e)}); '
                            'choose a writable workdir') from e
    self._writer = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())

  def __enter__(self):
    return self

  def __exit__(self, *exc):
    self.close()

  def steps(self) -> list[int]:
    """Committed steps, ascending."""
    return layout.complete_steps(self._folder)

  def save(self, step: int, state: Any, host_state: Mapping[str, Any]) -> None:
    """Save one step; the former ones stay usable until it is committed.

    Args:
      step: training step; not saved before.
      state: TrainState.
      host_state: JSON-serialisable.
    Raises:
      CheckpointError: the step exists, the disk is full, or writing failed. Nothing saved before is lost.
    """
    self.wait()
    path = layout.step_path(self._folder, step)
    if step in self.steps():
      raise CheckpointError(f'checkpoint {path} exists already; resume from it, or use another workdir')
    items, base = _items(state)
    base_folder = self._folder / layout.BASE
    base_items = {layout.PARAMS: base} if base and not layout.complete_steps(base_folder) else {}
    text = json.dumps(host_state, allow_nan=False)  # Refuses what JSON cannot hold before anything is written.
    if jax.process_index() == 0:
      layout.check_space(self._folder, _num_bytes(items) + _num_bytes(base_items))
    try:
      if base_items:
        base_path = layout.step_path(base_folder, 0)
        self._write(base_path, base_items)
        self._writer.wait_until_finished()
        if jax.process_index() == 0:
          layout.commit(base_path, _describe(base_items))
      self._write(path, items)
    except Exception as e:  # pylint: disable=broad-exception-caught
      raise self._failed(path, e) from e
    self._pending = step, text, _describe(items), bool(base)
    if self._blocking:
      self.wait()

  def wait(self) -> None:
    """Commit the step that is being written, if any; then drop the oldest ones."""
    if self._pending is None:
      return
    (step, text, arrays, has_base), self._pending = self._pending, None
    path = layout.step_path(self._folder, step)
    try:
      self._writer.wait_until_finished()
      if jax.process_index() == 0:
        (path / layout.HOST_STATE).write_text(text)
        layout.commit(path, arrays, layout.base_checksum(self._folder) if has_base else None)
        for old in self.steps()[:-self._keep]:
          layout.remove_step(self._folder, old)
    except Exception as e:  # pylint: disable=broad-exception-caught
      raise self._failed(path, e) from e

  def restore(self, abstract: Any, step: int | None = None) -> tuple[int, Any, dict[str, Any]]:
    """Read a step back, each array straight to where it belongs.

    Args:
      abstract: TrainState of jax.ShapeDtypeStructs with shardings (learning.step.abstract_train_state).
      step: default, the latest.
    Returns:
      (step, TrainState, host state).
    Raises:
      CheckpointError: none there, damaged, or of another shape. Never falls back to an older step.
    """
    self.wait()
    step = layout.pick_step(self._folder, step)
    layout.verify(self._folder, step)
    leaves = _restore(self._folder, step, *_items(abstract))
    names, treedef = _names(abstract)
    state = jax.tree.unflatten(treedef, [leaves[name] for name in names])
    return step, state, layout.read_host_state(self._folder, step)

  def close(self) -> None:
    """Commit what is pending and release the writer."""
    try:
      self.wait()
    finally:
      self._writer.close()

  def _write(self, path: epath.Path, items: Mapping[str, Mapping[str, jax.Array]]) -> None:
    self._writer.save(path, ocp.args.Composite(**{k: ocp.args.StandardSave(v) for k, v in items.items()}), force=True)

  def _failed(self, path: epath.Path, error: Exception) -> CheckpointError:
    kept = self.steps()
    return CheckpointError(f'checkpoint {path} could not be written ({_reason(error)}); '
                           + (f'step {kept[-1]} is intact: ' if kept else '')
                           + 'make room or choose a writable workdir, then start again to resume')


def restore_params(folder: epath.PathLike, abstract_params: Any, step: int | None = None) -> Any:
  """The parameters alone of a step (default: the latest), for evaluation or serving.

  Args:
    folder: a run's checkpoints folder.
    abstract_params: jax.ShapeDtypeStructs with shardings.
    step: see CheckpointFolder.restore.
  Raises:
    CheckpointError: see CheckpointFolder.restore.
  """
  logging.getLogger('absl').addFilter(_NO_CHATTER)
  step = layout.pick_step(folder, step)
  layout.verify(folder, step, items=(layout.PARAMS,))
  names, treedef = _names({'params': abstract_params})
  found = _restore(folder, step, *_items({'params': abstract_params}))
  return jax.tree.unflatten(treedef, [found[name] for name in names])['params']


def save_params(folder: epath.PathLike, params: Any) -> None:
  """A checkpoint of step 0 that holds parameters alone: for a policy that comes from elsewhere.

  Args:
    folder: created; must hold no checkpoint of that step.
    params: as the `params` of a TrainState.
  Raises:
    CheckpointError: the disk is full or cannot be written.
  """
  with CheckpointFolder(folder) as checkpoints:
    checkpoints.save(0, {'params': params}, {'step': 0})


class ParamsReader:
  """The parameters of a step, one at a time: for a host that need not hold them all.

  Args:
    folder: a run's checkpoints folder.
    step: default, the latest.
  Attributes:
    shapes: dotted name (layers.query.kernel) -> shape.
  Raises:
    CheckpointError: see CheckpointFolder.restore.
  """

  def __init__(self, folder: epath.PathLike, step: int | None = None):
    logging.getLogger('absl').addFilter(_NO_CHATTER)
    self._step = layout.pick_step(folder, step)
    layout.verify(folder, self._step, items=(layout.PARAMS,))
    manifest = layout.read_manifest(folder, self._step)
    places = [(folder, self._step)] + ([(epath.Path(folder) / layout.BASE, 0)] if 'base' in manifest else [])
    self._arrays = {
        name.removeprefix('params.'): (place, *value) for place in places
        for name, value in layout.read_manifest(*place)['arrays'].items() if name.startswith('params.')}
    self.shapes = {name: tuple(shape) for name, (_, shape, _) in self._arrays.items()}

  def read(self, name: str, sharding: jax.sharding.Sharding) -> jax.Array:
    """One parameter, placed as told."""
    place, shape, dtype = self._arrays[name]
    item = {f'params.{name}': jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=sharding)}
    args = ocp.args.PyTreeRestore(item, restore_args=ocp.checkpoint_utils.construct_restore_args(item), partial_restore=True)
    return _read(*place, {layout.PARAMS: args})[layout.PARAMS][f'params.{name}']


def _names(tree: Any) -> tuple[list[str], Any]:
  """Dotted name of each leaf, e.g. params.layers.query.kernel, and the tree's structure."""
  paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
  return [jax.tree_util.keystr(path, simple=True, separator='.') for path, _ in paths], treedef


def _items(state: Any) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
  """What a step writes, and the frozen parameters, which it shares with others (none: empty).

  Flat dicts, so that a file's form does not hang on the optimizer's Python classes.
  """
  leaves = dict(zip(_names(state)[0], jax.tree.leaves(state)))
  params = {name: x for name, x in leaves.items() if name.startswith('params.')}
  others = {name: x for name, x in leaves.items() if name not in params}
  adapter = {name: x for name, x in params.items() if lora.is_adapter_leaf(name)}
  base = {name: x for name, x in params.items() if name not in adapter} if adapter else {}
  return {layout.PARAMS: adapter or params} | ({layout.OPTIMIZER: others} if others else {}), base


def _num_bytes(items: Mapping[str, Mapping[str, jax.Array]]) -> int:
  """What this process will write."""
  return sum(shard.data.nbytes for arrays in items.values() for x in arrays.values()
             for shard in x.addressable_shards if shard.replica_id == 0)


def _describe(items: Mapping[str, Mapping[str, Any]]) -> dict[str, list]:
  return {name: [list(x.shape), x.dtype.name] for arrays in items.values() for name, x in arrays.items()}


def _restore(folder: epath.PathLike, step: int, items: dict[str, dict[str, Any]], base: dict[str, Any]) -> dict[str, Any]:
  """Name -> array of a verified step and of its frozen parameters, after comparing names, shapes and dtypes.

  Frozen parameters are rounded to the dtype that is asked for: how they are kept is no part of the policy.
  """
  path = layout.step_path(folder, step)
  manifest, wanted = layout.read_manifest(folder, step), _describe(items | ({'base': base} if base else {}))
  scope = {name: v for name, v in manifest['arrays'].items() if layout.OPTIMIZER in items or name.startswith('params.')}
  if 'base' in manifest:
    frozen = layout.read_manifest(epath.Path(folder) / layout.BASE, 0)['arrays']
    scope |= {name: [shape, wanted.get(name, (None, dtype))[1]] for name, (shape, dtype) in frozen.items()}
  for name in sorted(scope.keys() | wanted.keys()):
    if scope.get(name) != wanted.get(name):
      show = lambda v: 'no such array' if v is None else f'{v[1]}{v[0]}'
      raise CheckpointError(f'checkpoint {path} is of another policy or optimizer: {name} is {show(scope.get(name))} '
                            f'there but {show(wanted.get(name))} here; use the settings it was saved with')
  parts = [(folder, step, items)] + ([(epath.Path(folder) / layout.BASE, 0, {layout.PARAMS: base})] if base else [])
  return {name: x for place, number, part in parts
          for arrays in _read(place, number, {k: ocp.args.StandardRestore(v) for k, v in part.items()}).values()
          for name, x in arrays.items()}


def _read(folder: epath.PathLike, step: int, args: Mapping[str, Any]) -> Any:
  """What orbax reads of a verified step."""
  path = layout.step_path(folder, step)
  try:
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
      return reader.restore(path, ocp.args.Composite(**args))
  except Exception as e:  # pylint: disable=broad-exception-caught
    raise CheckpointError(f'checkpoint {path} cannot be read ({_reason(e)}); restore it from a copy, or remove that '
                          'folder to resume from an older step') from e


def _reason(error: Exception) -> str:
  """The first line of an error, short enough for one message."""
  lines = str(error).strip().splitlines()
  return f'{type(error).__name__}: {lines[0][:200]}' if lines else type(error).__name__
