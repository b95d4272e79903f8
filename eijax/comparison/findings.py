"""All that a comparison of two evaluations says, as plain data."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from eijax.comparison import conditions
from eijax.comparison.alignment import ScenarioPair, Side, align
from eijax.comparison.paired import NUM_PERMUTATIONS, holm, summarise_differences
from eijax.errors import DataError
from eijax.evaluation.reading import Evaluation
from eijax.scenarios.record import SCENES

ALPHA = 0.05


def compare(
    a: Evaluation, b: Evaluation, *, seed: int = 0, tie_margin: float = 0.0, num_moved: int = 5
) -> dict[str, Any]:
  """Compare B with A, scenario by scenario. Scores and differences x100, B less A.

  Args:
    tie_margin: largest absolute difference of a scenario, in points, that counts as a tie.
    num_moved: how many scenarios to name in each direction.
  Returns:
    JSON-ready: `a`, `b`, `overall`, `scenes` (only those with a pair), `moved`, `left_out`,
    `warnings`, `settings`.
  Raises:
    DataError: if there is not one scenario scored in both.
  """
  alignment = align(a, b)
  pairs = alignment.pairs
  if not pairs:
    raise DataError(
        f'{a.folder} and {b.folder}: no scenario is scored in both ({len(alignment.left_out)} entries without a '
        'match); compare evaluations on the same scenarios'
    )
  scenes = {}
  for scene in SCENES:
    part = [pair for pair in pairs if pair.scene == scene]
    if part:
      scenes[scene] = _part(part, seed, tie_margin)
  for scene, adjusted in holm({scene: part['p_value'] for scene, part in scenes.items()}).items():
    scenes[scene]['p_holm'] = adjusted
  return {
      'a': _about(a),
      'b': _about(b),
      'overall': _part(pairs, seed, tie_margin),
      'scenes': scenes,
      'moved': moved(pairs, num_moved),
      'left_out': [dataclasses.asdict(item) for item in alignment.left_out],
      'warnings': conditions.warnings(a, b, alignment),
      'settings': {'seed': seed, 'tie_margin': tie_margin, 'alpha': ALPHA, 'num_permutations': NUM_PERMUTATIONS},
  }


def _about(evaluation: Evaluation) -> dict[str, Any]:
  failed = sum(row['score'] is None for row in evaluation.rows)
  return {
      'folder': str(evaluation.folder), 'model': evaluation.name, 'simulator': evaluation.simulator,
      'n': len(evaluation.rows), 'failed': failed,
  }


def _part(pairs: Sequence[ScenarioPair], seed: int, tie_margin: float) -> dict[str, Any]:
  paired = summarise_differences({pair.id: pair.difference for pair in pairs}, seed=seed, tie_margin=tie_margin)
  return {
      'n': paired.num,
      'score_a': math.fsum(pair.a.score for pair in pairs) / len(pairs),
      'score_b': math.fsum(pair.b.score for pair in pairs) / len(pairs),
      'difference': paired.mean,
      'ci95': [paired.low, paired.high],
      'p_value': paired.p_value,
      'effect_size': paired.effect_size,
      'detectable': paired.detectable,
      'wins': paired.wins,
      'ties': paired.ties,
      'losses': paired.losses,
  }


def moved(pairs: Sequence[ScenarioPair], num: int) -> dict[str, list[dict[str, Any]]]:
  """The scenarios that moved most, up and down, each with its two final states. Ties go by id."""
  up = sorted((pair for pair in pairs if pair.difference > 0), key=lambda pair: (-pair.difference, pair.id))
  down = sorted((pair for pair in pairs if pair.difference < 0), key=lambda pair: (pair.difference, pair.id))
  return {name: [_moved(pair) for pair in ranked[:num]] for name, ranked in (('up', up), ('down', down))}


def _moved(pair: ScenarioPair) -> dict[str, Any]:
  return {
      'id': pair.id, 'scene': pair.scene, 'difference': pair.difference, 'a': _talk(pair.a), 'b': _talk(pair.b)
  }


def _talk(side: Side) -> dict[str, Any]:
  return {
      'score': side.score, 'samples': side.num_samples, 'final': dict(side.final), 'ended_by': list(side.ended_by)
  }
