"""Which talks of two evaluations belong together, and which are left out and why."""

import collections
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.comparison.paired import cluster_means
from eijax.evaluation.reading import Evaluation, start_state

_FINAL = 'final_'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
  """One scenario in one evaluation: mean over its scored samples. score x100."""

  score: float
  num_samples: int
  final: Mapping[str, float]  # Each `final_NAME` of the rows, without the prefix.
  ended_by: tuple[str, ...]  # One a sample, in their order.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScenarioPair:
  """The same scenario, scored in both evaluations."""

  id: str
  scene: str
  a: Side
  b: Side

  @property
  def difference(self) -> float:
    """B less A."""
    return self.b.score - self.a.score


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
  """A talk (or, where sample is None, all talks of a scenario) that cannot be compared."""

  id: str
  sample: int | None
  side: str  # 'A' or 'B', where the talk stands.
  reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alignment:
  pairs: tuple[ScenarioPair, ...]
  left_out: tuple[LeftOut, ...]


def align(a: Evaluation, b: Evaluation) -> Alignment:
  """Pair up two evaluations by scenario id; samples of a scenario are averaged.

  A scenario counts where both sides have a scored talk on it, of the same scene and
  from the same start state. Everything else is in left_out.
  """
  rows = {side: _by_id(evaluation.rows) for side, evaluation in (('A', a), ('B', b))}
  pairs, left_out = [], []
  for scenario_id in sorted(rows['A'].keys() | rows['B'].keys()):
    ours = {side: rows[side].get(scenario_id, []) for side in rows}
    scored = {side: [row for row in ours[side] if row['score'] is not None] for side in rows}
    for side in rows:
      left_out += [
          LeftOut(id=scenario_id, sample=row.get('sample', 0), side=side, reason=f'failed ({row.get("ended_by")})')
          for row in ours[side] if row['score'] is None
      ]
    reason = _reason(ours, scored)
    if reason is None:
      pairs.append(ScenarioPair(
          id=scenario_id, scene=scored['A'][0]['scene_tag'], a=_side(scored['A']), b=_side(scored['B'])
      ))
    else:
      left_out += [
          LeftOut(id=scenario_id, sample=None, side=side, reason=reason) for side in rows if scored[side]
      ]
  return Alignment(pairs=tuple(pairs), left_out=tuple(left_out))


def _by_id(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
  by_id = collections.defaultdict(list)
  for row in rows:
    by_id[row['id']].append(row)
  return dict(by_id)


def _reason(ours: Mapping[str, list], scored: Mapping[str, list]) -> str | None:
  """Why a scenario cannot be compared; None where it can."""
  for side, other in (('A', 'B'), ('B', 'A')):
    if not ours[other]:
      return f'only in {side}'
    if not scored[other]:
      return f'every talk failed in {other}'
  if len({row['scene_tag'] for rows in scored.values() for row in rows}) > 1:
    return 'another scene in A than in B'
  starts = {start for rows in scored.values() for row in rows if (start := start_state(row))}
  if len(starts) > 1:
    return 'another start state in A than in B: the scenario was edited'
  return None


def _side(rows: Sequence[Mapping[str, Any]]) -> Side:
  names = [key for key in rows[0] if key.startswith(_FINAL)]
  return Side(
      score=100.0 * cluster_means([(None, row['score']) for row in rows])[None],
      num_samples=len(rows),
      final={
          name.removeprefix(_FINAL): statistics.fmean(row[name] for row in rows)
          for name in names
          if all(isinstance(row.get(name), int | float) for row in rows)
      },
      ended_by=tuple(str(row.get('ended_by')) for row in rows),
  )
