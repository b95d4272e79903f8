"""Mean anger and trust over the turns, by scene, with the number of talks still running."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eijax.report import held_out
from eijax.scenarios.record import SCENES


def num_rounds(rows: Sequence[Mapping[str, Any]]) -> int:
  return max((len(row['turns']) for row in rows), default=0)


def curves(rows: Sequence[Mapping[str, Any]], rounds: int) -> dict[str, dict[str, Any]]:
  """By part ('overall' and scenes), lists over the start and each turn up to `rounds`.

  `all`: mean level where a talk that has ended counts on with its last one. `running`: mean
  over the talks that had that turn; None where there is none left. `num_running`: how many.
  Failed talks are left out. Levels are rounded to 0.01.
  """
  parts = {}
  for part in ('overall', *SCENES):
    scored = [row for row in rows if part in ('overall', row['scene_tag']) and row['score'] is not None and row['turns']]
    parts[part] = {
        'num_running': [sum(len(row['turns']) >= turn for row in scored) for turn in range(rounds + 1)],
        **{axis: _axis(scored, axis, rounds) for axis in held_out.AXES},
    }
  return parts


def _axis(scored: Sequence[Mapping[str, Any]], axis: str, rounds: int) -> dict[str, list[float | None]]:
  tracks = [held_out.levels(row, axis) for row in scored]
  running = []
  for turn in range(rounds + 1):
    levels = [track[turn] for track in tracks if len(track) > turn]
    running.append(float(np.mean(levels)) if levels else None)
  held = held_out.mean_levels(scored, axis, rounds)
  return {'all': [_rounded(value) for value in held], 'running': [_rounded(value) for value in running]}


def _rounded(value: float | None) -> float | None:
  return None if value is None or np.isnan(value) else round(float(value), 2)
