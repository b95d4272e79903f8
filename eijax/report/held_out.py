"""What changed on the held-out scenarios between two evaluations, as data."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eijax.evaluation.statistics import clustered_mean
from eijax.report.run_folder import Evaluation, Score
from eijax.scenarios.record import SCENES

AXES = ('anger', 'trust')
# How a talk ended, in the order of a bar: key, words, colour role.
ENDINGS = (
    ('stop_good', 'user ended it, score above 0', 'part-3'),
    ('stop_bad', 'user ended it, score 0 or below', 'part-2'),
    ('max_rounds', 'round limit', 'part-1'),
    ('failed', 'broken off by an error', 'part-4'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
  """The same scenario (and sample) in both evaluations. Scores x100, None where a talk failed."""

  scenario_id: str
  sample: int
  scene: str
  before: Mapping[str, Any] | None
  after: Mapping[str, Any] | None

  @property
  def before_score(self) -> float | None:
    return score_of(self.before)

  @property
  def after_score(self) -> float | None:
    return score_of(self.after)

  @property
  def change(self) -> float | None:
    if self.before_score is None or self.after_score is None:
      return None
    return self.after_score - self.before_score


def score_of(row: Mapping[str, Any] | None) -> float | None:
  """Score x100 of a row; None where there is no talk, or it failed."""
  return None if row is None or row['score'] is None else 100.0 * row['score']


def pair_up(before: Evaluation, after: Evaluation | None) -> list[Pair]:
  """All scenarios of both evaluations, by scene and id."""
  rows = [
      {(row['id'], row.get('sample', 0)): row for row in (evaluation.rows if evaluation else ())}
      for evaluation in (before, after)
  ]
  pairs = [
      Pair(
          scenario_id=key[0], sample=key[1], scene=(rows[0].get(key) or rows[1][key])['scene_tag'],
          before=rows[0].get(key), after=rows[1].get(key),
      )
      for key in rows[0].keys() | rows[1].keys()
  ]
  return sorted(pairs, key=lambda pair: (SCENES.index(pair.scene), pair.scenario_id, str(pair.sample)))


def mean_change(pairs: Sequence[Pair]) -> Score:
  """Mean change x100 over scenarios scored in both, with a paired 95 % bootstrap interval."""
  both = [pair for pair in pairs if pair.change is not None]
  interval = clustered_mean([pair.change for pair in both], [pair.scenario_id for pair in both])
  return Score(mean=interval.mean, low=interval.low, high=interval.high, num=len(both))


def ending_of(row: Mapping[str, Any]) -> str:
  """Key of ENDINGS."""
  if row.get('ended_by') == 'simulator_stop' and row['score'] is not None:
    return 'stop_good' if row['score'] > 0 else 'stop_bad'
  return 'max_rounds' if row.get('ended_by') == 'max_rounds' else 'failed'


def count_endings(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
  counts = collections.Counter(ending_of(row) for row in rows)
  return {key: counts[key] for key, _, _ in ENDINGS}


def mean_rounds(rows: Sequence[Mapping[str, Any]]) -> float | None:
  finished = [len(row['turns']) for row in rows if row['score'] is not None]
  return float(np.mean(finished)) if finished else None


def levels(row: Mapping[str, Any], axis: str) -> list[float]:
  """The level before the first turn and after each; empty where there is no turn."""
  turns = row['turns']
  if not turns:
    return []
  return [turns[0][axis] - turns[0][f'{axis}_delta'], *(turn[axis] for turn in turns)]


def mean_levels(rows: Sequence[Mapping[str, Any]], axis: str, num_rounds: int) -> np.ndarray:
  """Mean level at the start and after each round, float64[num_rounds + 1].

  A talk that has ended counts on with its last level: otherwise the later rounds would
  show only the talks that had not been settled, or given up, before.
  """
  tracks = [levels(row, axis) for row in rows if row['turns'] and row['score'] is not None]
  if not tracks:
    return np.full(num_rounds + 1, np.nan)
  return np.mean([(track + [track[-1]] * num_rounds)[: num_rounds + 1] for track in tracks], axis=0)
