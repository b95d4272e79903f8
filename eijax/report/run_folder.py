"""Read a run folder, as eijax.train leaves it, finished or not."""

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eijax import jsonl
from eijax.errors import DataError
from eijax.evaluation import store
from eijax.evaluation.reading import check_row, number
from eijax.scenarios.record import SCENES

SUPERVISED = 'sft'
STEP_FOLDER = re.compile(r'step_(\d+)\Z')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
  """A mean score x100 with its 95 % interval; all None where no talk was scored."""

  mean: float | None
  low: float | None
  high: float | None
  num: int


NO_SCORE = Score(mean=None, low=None, high=None, num=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """One held-out evaluation. step: updates made before it. rows: results.jsonl."""

  step: int
  overall: Score
  scenes: Mapping[str, Score]
  num_talks: int
  num_failed: int
  rows: tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
  """A run folder. metrics: one object a step, sorted by step; evaluations likewise.

  partial_steps: evaluations that were begun and have no summary yet.
  """

  config: Mapping[str, Any]
  metrics: tuple[dict[str, Any], ...]
  evaluations: tuple[Evaluation, ...]
  partial_steps: tuple[int, ...]

  @property
  def num_steps(self) -> int | None:
    """Steps that the run was asked for."""
    value = self.config.get('num_steps')
    return value if isinstance(value, int) and not isinstance(value, bool) else None

  @property
  def steps_done(self) -> int:
    if not self.metrics:
      return 0
    steps = [row['step'] for row in self.metrics]
    # Whether steps count from 0 or 1, this is how many there were.
    return steps[-1] + (steps[0] == 0)

  @property
  def is_supervised(self) -> bool:
    """Whether the run learned from conversations instead of talks of its own."""
    return self.config.get('algorithm') == SUPERVISED

  @property
  def is_finished(self) -> bool:
    """Whether the policy was evaluated both before the first and after the last step."""
    if len(self.evaluations) < 2:
      return False
    return self.num_steps is None or self.evaluations[-1].step >= self.num_steps

  @property
  def is_embedded(self) -> bool | None:
    """Whether the rule-based simulator played the user; None where the folder does not say."""
    simulator = self.config.get('simulator')
    if not isinstance(simulator, Mapping):
      return None
    return bool(simulator.get('embedded')) or not simulator.get('urls')


def read_run(workdir: str | os.PathLike) -> Run:
  """Read all that the report needs.

  Raises:
    DataError: if the folder is not a run folder or a file in it is broken.
  """
  workdir = pathlib.Path(workdir)
  if not workdir.is_dir():
    raise DataError(f'{workdir}: is not a folder; give the --workdir of a run of eijax.train')
  config_path = workdir / 'config.json'
  if not config_path.is_file():
    raise DataError(
        f'{workdir}: holds no config.json, so it is not a run folder; give the --workdir of a run of eijax.train'
    )
  config = jsonl.read_json(config_path)
  if not isinstance(config, dict):
    raise DataError(f'{config_path}: must hold a JSON object, not a {type(config).__name__}; start the run anew')
  # A supervised fine-tuning holds no talks; its held-out loss is read where its page is made.
  evaluations, partial_steps = ((), ()) if config.get('algorithm') == SUPERVISED else _read_evaluations(workdir / 'eval')
  return Run(
      config=config,
      metrics=_read_metrics(workdir / 'metrics.jsonl'),
      evaluations=evaluations,
      partial_steps=partial_steps,
  )


def _read_metrics(path: pathlib.Path) -> tuple[dict[str, Any], ...]:
  by_step = {}
  for index, row in enumerate(jsonl.read_objects(path), start=1):
    step = row.get('step') if isinstance(row, dict) else None
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
      raise DataError(f'{path}: record {index}: `step` = {step!r} must be an integer >= 0; remove the record')
    by_step[step] = row  # A resumed run may have written a step again: the last one counts.
  return tuple(by_step[step] for step in sorted(by_step))


def _read_evaluations(folder: pathlib.Path) -> tuple[tuple[Evaluation, ...], tuple[int, ...]]:
  evaluations, partial_steps = [], []
  for child in sorted(folder.iterdir()) if folder.is_dir() else ():
    match = STEP_FOLDER.match(child.name)
    if not match or not child.is_dir():
      continue
    if (child / store.SUMMARY).is_file():
      evaluations.append(_read_evaluation(child, int(match.group(1))))
    else:
      partial_steps.append(int(match.group(1)))
  evaluations.sort(key=lambda evaluation: evaluation.step)
  return tuple(evaluations), tuple(sorted(partial_steps))


def _read_evaluation(folder: pathlib.Path, step: int) -> Evaluation:
  summary = store.read_summary(folder)
  where = f'{folder / store.SUMMARY}'
  scenes = summary.get('scenes')
  rows = store.read_rows(folder)
  for index, row in enumerate(rows, start=1):
    check_row(row, f'{folder / store.RESULTS}: record {index}')
  return Evaluation(
      step=step,
      overall=_read_score(summary.get('overall'), f'{where}: `overall`'),
      scenes={
          scene: _read_score(scenes[scene], f'{where}: `scenes.{scene}`')
          for scene in SCENES
          if isinstance(scenes, dict) and scene in scenes
      },
      num_talks=len(rows),
      num_failed=sum(row.get('score') is None for row in rows),
      rows=tuple(rows),
  )


def _read_score(part: Any, where: str) -> Score:
  interval = part.get('ci95') if isinstance(part, dict) else None
  if not isinstance(interval, Sequence) or isinstance(interval, str) or len(interval) != 2:
    raise DataError(f'{where} = {part!r} must be an object with `score`, `ci95` of two numbers and `n`; evaluate again')
  values = [None if math.isnan(number(value)) else float(value) for value in (part.get('score'), *interval)]
  num = part.get('n')
  if None in values:
    return NO_SCORE
  return Score(mean=values[0], low=values[1], high=values[2], num=num if isinstance(num, int) else 0)
