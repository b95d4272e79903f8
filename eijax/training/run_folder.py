"""The files of a run: config, metrics, episodes, evaluations. No arrays.

    config.json  metrics.jsonl  episodes/step_NNNNNN.jsonl  eval/step_NNNNNN/
    policy/{config.json, tokenizer's files}  checkpoints/  tensorboard/  profile/  report.html
"""

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import Any

from eijax import jsonl, settings
from eijax.errors import CheckpointError, DataError, EijaxError, UsageError


def step_name(step: int) -> str:
  return f'step_{step:06d}'


class RunFolder:
  """Owns a workdir's plain files. A new run is in the folder once `claim` has written its settings.

  Args:
    path: created if need be.
    config: plain settings of this run (settings.to_plain).
    resume: go on with a run that the folder holds; it must have the same settings.
  Raises:
    UsageError: the folder holds another run, or a run and resume is false.
    EijaxError: the folder cannot be written.
  """

  def __init__(self, path: str | os.PathLike, config: Mapping[str, Any], *, resume: bool):
    self.path = pathlib.Path(path)
    config_path = self.path / 'config.json'
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self.resumed = config_path.exists()
    except OSError as error:
      raise EijaxError(f'workdir {self.path} cannot be created or read ({error.strerror}); choose another --workdir') from None
    self._config = dict(config)
    if not self.resumed:
      self._refuse_strangers()
    elif not resume:
      raise UsageError(f'workdir {self.path} holds a run already; drop --noresume to go on with it, or choose another --workdir')
    else:
      settings.check_same(config_path, config, f'workdir {self.path} holds a run', '--workdir')

  def claim(self) -> None:
    """Write config.json for a new run.

    Only once all that it names has been found usable: otherwise whoever mends a setting would be told that the
    folder holds a run with other settings.
    """
    if not self.resumed:
      settings.write(self.path / 'config.json', self._config)

  def _refuse_strangers(self) -> None:
    if (self.path / 'checkpoints').exists() or (self.path / 'metrics.jsonl').exists():
      raise CheckpointError(f'workdir {self.path} holds parts of a run but no config.json; restore that file, or choose another --workdir')

  def rewind(self, step: int) -> None:
    """Forget what was written for steps that the checkpoint does not hold: those from `step` on.

    They are about to be run again, to the same result.
    """
    metrics = self.path / 'metrics.jsonl'
    if metrics.exists():
      rows = jsonl.read_objects(metrics)
      strange = next((n for n, row in enumerate(rows, start=1) if not isinstance(row, dict) or 'step' not in row), None)
      if strange is not None:
        raise DataError(f'{metrics}: row {strange} has no `step`; restore the file from a copy, or remove that row')
      jsonl.write_lines(metrics, [row for row in rows if row['step'] < step])
    for file in (self.path / 'episodes').glob('step_*.jsonl'):
      if int(file.stem.removeprefix('step_')) >= step:
        file.unlink()

  def add_metrics(self, row: Mapping[str, Any]) -> None:
    with jsonl.Appender(self.path / 'metrics.jsonl') as appender:
      appender.append(dict(row))

  def update_metrics(self, step: int, values: Mapping[str, Any]) -> None:
    """Change values of a row that is there."""
    path = self.path / 'metrics.jsonl'
    jsonl.write_lines(path, [row | values if row['step'] == step else row for row in jsonl.read_objects(path)])

  def write_episodes(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
    jsonl.write_lines(self.path / 'episodes' / f'{step_name(step)}.jsonl', list(rows))

  def eval_folder(self, step: int) -> pathlib.Path:
    return self.path / 'eval' / step_name(step)

  def set_failed_eval_aside(self, step: int) -> pathlib.Path:
    """Keep the results of an evaluation without a score under another name, so that it is held again.

    Returns:
      where they are now.
    """
    folder = self.eval_folder(step)
    (folder / 'summary.json').unlink()
    return (folder / 'results.jsonl').replace(folder / 'failed.jsonl')

  @property
  def checkpoints(self) -> pathlib.Path:
    return self.path / 'checkpoints'

  @property
  def tensorboard(self) -> pathlib.Path:
    return self.path / 'tensorboard'

  @property
  def profile(self) -> pathlib.Path:
    return self.path / 'profile'

  @property
  def policy(self) -> pathlib.Path:
    return self.path / 'policy'
