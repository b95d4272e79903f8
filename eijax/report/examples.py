"""Choose example talks by rule and prepare them for the page."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.errors import DataError
from eijax.report import held_out
from eijax.report.held_out import Pair
from eijax.report.plain_text import shorten
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES, Scenario

_MAX_CHARS = (3000, 1500, 800, 400, 200)
_MAX_TALK_BYTES = 900_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
  """A pair and by which rules it was chosen: 'median', 'best', 'worst'."""

  pair: Pair
  rules: tuple[str, ...]


def choose(pairs: Sequence[Pair]) -> list[Chosen]:
  """For each scene the median, the largest and the smallest change, in this order.

  Pairs that were not scored twice are left out. Ties go to the first id; of an even number
  the lower middle is the median. One pair chosen by several rules stands once.
  """
  chosen = []
  for scene in SCENES:
    ranked = sorted(
        (pair for pair in pairs if pair.scene == scene and pair.change is not None),
        key=lambda pair: (pair.change, pair.scenario_id, str(pair.sample)),
    )
    if not ranked:
      continue
    by_index: dict[int, list[str]] = {}
    for rule, index in (('median', (len(ranked) - 1) // 2), ('best', len(ranked) - 1), ('worst', 0)):
      by_index.setdefault(index, []).append(rule)
    chosen += [Chosen(pair=ranked[index], rules=tuple(rules)) for index, rules in by_index.items()]
  return chosen


def text_limit(chosen: Sequence[Chosen]) -> int:
  """Characters that one text of a talk may have, so that all talks together fit the page."""
  texts = [
      str(turn.get(name) or '')
      for item in chosen
      for row in (item.pair.before, item.pair.after)
      if row
      for turn in row['turns']
      for name in ('defender', 'thought', 'simulator')
  ]
  for limit in _MAX_CHARS:
    if sum(len(text[:limit].encode('utf-8', 'replace')) for text in texts) <= _MAX_TALK_BYTES:
      return limit
  return _MAX_CHARS[-1]


def turns_of(row: Mapping[str, Any], max_chars: int) -> list[dict[str, Any]]:
  """The turns of a row as the template shows them."""
  anger, trust = held_out.levels(row, 'anger'), held_out.levels(row, 'trust')
  return [
      {
          'number': index,
          'defender': shorten(str(turn.get('defender') or ''), max_chars),
          'thought': shorten(str(turn.get('thought') or ''), max_chars),
          'simulator': shorten(str(turn.get('simulator') or ''), max_chars),
          'moods': [
              {'axis': 'anger', 'from': anger[index - 1], 'to': anger[index], 'delta': turn['anger_delta']},
              {'axis': 'trust', 'from': trust[index - 1], 'to': trust[index], 'delta': turn['trust_delta']},
          ],
      }
      for index, turn in enumerate(row['turns'], start=1)
  ]


def scenarios_by_id(folder: str | pathlib.Path | None) -> dict[str, Scenario]:
  """Held-out scenarios for titles and opening lines.

  Raises:
    DataError: if the folder holds no valid scenarios.
  """
  return {} if folder is None else {scenario.id: scenario for scenario in load_split(folder, 'test')}


def scenarios_of_config(config: Mapping[str, Any]) -> dict[str, Scenario]:
  """Those of the folder that the run used, where it is still there and readable."""
  folder = config.get('scenarios')
  if not isinstance(folder, str):
    return {}
  try:
    return scenarios_by_id(folder)
  except DataError:
    # The run folder was moved without them; the report is whole without titles, too.
    return {}


def matching(scenario: Scenario | None, rows: Sequence[Mapping[str, Any] | None]) -> Scenario | None:
  """The scenario, unless the talks began from another state: then it was edited since."""
  if scenario is None:
    return None
  for row in rows:
    if row and row['turns']:
      start = held_out.levels(row, 'anger')[0], held_out.levels(row, 'trust')[0]
      if row['scene_tag'] != scenario.scene or start != (scenario.anchors.initial_anger, scenario.anchors.initial_trust):
        return None
  return scenario
