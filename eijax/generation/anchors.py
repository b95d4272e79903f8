"""The rule-based repair of anchors: numbers, multiples of 5, orderings.

Source: EIBench, arXiv 2606.15532: broken orderings are repaired by moving the target or
the worst anchor 5 points past the start. The start stays where it is, but away from the ends,
so that there is room on both sides of it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from eijax.scenarios.record import Anchors

STEP = 5
PLACES = {
  'initial_anger': ('initial_calibration', 'initial_anger'),
  'initial_trust': ('initial_calibration', 'initial_trust'),
  'target_anger': ('rub_goals', 'target_anger'),
  'target_trust': ('rub_goals', 'target_trust'),
  'worst_anger': ('worst_case', 'worst_anger_min'),
  'worst_trust': ('worst_case', 'worst_trust_min'),
}


class AnchorError(ValueError):
  """An anchor that is no number."""


def number(value: Any, field: str) -> float:
  """A finite number from what a model wrote: 60, 60.0, "60", "+60 points"."""
  if isinstance(value, str):
    try:
      value = float(value.strip().split()[0].rstrip('%分'))
    except (ValueError, IndexError):
      pass
  if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e6:
    raise AnchorError(f'`{field}` = {value!r} must be a number in 0..100')
  return float(value)


def rounded(value: float) -> int:
  """The nearest multiple of 5 in 0..100, halves up."""
  return min(100, max(0, int((value + STEP / 2) // STEP) * STEP))


def repair(levels: Mapping[str, Any]) -> tuple[Anchors, tuple[str, ...]]:
  """Return anchors that hold every rule, and what had to be changed.

  Args:
    levels: the six fields of Anchors, as a model or a file has them.
  Returns:
    (anchors, lines such as 'target_anger 70 -> 55').
  Raises:
    AnchorError: a value is missing or no number.
  """
  given = {name: number(levels.get(name), name) for name in PLACES}
  mended = {name: rounded(value) for name, value in given.items()}
  for name in ('initial_anger', 'initial_trust'):
    mended[name] = min(100 - STEP, max(STEP, mended[name]))
  anger, trust = mended['initial_anger'], mended['initial_trust']
  if mended['target_anger'] >= anger:
    mended['target_anger'] = anger - STEP
  if mended['worst_anger'] <= anger:
    mended['worst_anger'] = anger + STEP
  if mended['target_trust'] <= trust:
    mended['target_trust'] = trust + STEP
  if mended['worst_trust'] >= trust:
    mended['worst_trust'] = trust - STEP
  changes = tuple(
    f'{name} {levels[name]!r} -> {value}'
    for name, value in mended.items()
    if type(levels[name]) is not int or levels[name] != value
  )
  return Anchors(**mended), changes


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
  """The six levels of a record, None where one is missing."""
  levels = {}
  for name, (parent, field) in PLACES.items():
    block = record.get(parent)
    levels[name] = block.get(field) if isinstance(block, Mapping) else None
  return levels


def put(record: dict[str, Any], anchors: Anchors) -> None:
  """Write the anchors into a record, beside whatever else its blocks hold."""
  values = dataclasses.asdict(anchors)
  for name, (parent, field) in PLACES.items():
    block = record.get(parent)
    record[parent] = {**block} if isinstance(block, Mapping) else {}
    record[parent][field] = values[name]
