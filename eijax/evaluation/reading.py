"""Read an evaluation folder, whole or unfinished, and say exactly what is wrong with it."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from eijax import jsonl
from eijax.errors import DataError
from eijax.evaluation import store
from eijax.scenarios.record import SCENES

CONFIG = 'config.json'
_LEVELS = ('anger', 'trust', 'anger_delta', 'trust_delta')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """The talks of one model.

  name: of the model, as the summary has it, else of the folder.
  simulator: as the summary has it; None where it does not say.
  rows: results.jsonl, checked, in the order of scenario id and sample.
  summary: None where the evaluation is not finished.
  settings: config.json, how the talks were held; empty where there is none.
  """

  folder: pathlib.Path
  name: str
  simulator: str | None
  rows: tuple[dict[str, Any], ...]
  summary: Mapping[str, Any] | None
  settings: Mapping[str, Any]


def read_evaluation(folder: str | os.PathLike) -> Evaluation:
  """Read a folder written by eijax.evaluate, or an eval/step_NNNNNN of a training run.

  Raises:
    DataError: no such folder, no talk in it, a broken row, or one talk twice.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise DataError(f'{folder}: is not a folder; give a folder that python -m eijax.evaluate has written')
  if not (folder / store.RESULTS).is_file():
    steps = sorted(path.parent for path in folder.glob(f'eval/step_*/{store.RESULTS}'))
    if steps:
      raise DataError(
          f'{folder}: is a training run, not one evaluation; give one of its {len(steps)}: {steps[0]} .. {steps[-1]}'
      )
    raise DataError(
        f'{folder}: holds no {store.RESULTS}; give a folder that python -m eijax.evaluate has written'
    )
  rows = store.read_rows(folder)
  if not rows:
    raise DataError(f'{folder / store.RESULTS}: holds no finished talk; evaluate again with --resume')
  places = set()
  for index, row in enumerate(rows, start=1):
    where = f'{folder / store.RESULTS}: record {index}'
    check_row(row, where)
    place = (row['id'], row.get('sample', 0))
    if place in places:
      raise DataError(f'{where}: scenario {place[0]!r}, sample {place[1]} stands twice; remove one of the two')
    places.add(place)
  summary = store.read_summary(folder) if (folder / store.SUMMARY).is_file() else None
  simulator = (summary or {}).get('simulator')
  return Evaluation(
      folder=folder,
      name=str((summary or {}).get('model') or folder.resolve().name),
      simulator=None if simulator is None else str(simulator),
      rows=tuple(sorted(rows, key=lambda row: (row['id'], row.get('sample', 0)))),
      summary=summary,
      settings=_settings(folder),
  )


def _settings(folder: pathlib.Path) -> dict[str, Any]:
  candidates = [folder / CONFIG]
  if folder.resolve().parent.name == 'eval':  # Of a training run, whose config stands two folders up.
    candidates.append(folder.resolve().parent.parent / CONFIG)
  path = next((path for path in candidates if path.is_file()), None)
  config = jsonl.read_json(path) if path else {}
  return config if isinstance(config, dict) else {}


def number(value: Any) -> float:
  """The value as a float; NaN where it is missing, null or no number."""
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return math.nan
  return float(value)


def check_row(row: Any, where: str) -> None:
  """Refuse a row whose shape would make a table or a page say something wrong.

  Raises:
    DataError: names `where`, the field, its value and the rule.
  """
  if not isinstance(row, dict):
    raise DataError(f'{where}: must be a JSON object, not a {type(row).__name__}; evaluate again')
  sample = row.get('sample', 0)
  for name, rule, kept in (
      ('id', 'text', isinstance(row.get('id'), str)),
      ('sample', 'an integer >= 0', isinstance(sample, int) and not isinstance(sample, bool) and sample >= 0),
      ('scene_tag', f'one of {", ".join(SCENES)}', row.get('scene_tag') in SCENES),
      ('score', 'null or a number in -1..1', row.get('score') is None or -1 <= number(row['score']) <= 1),
      ('turns', 'a list of objects', _is_list_of_objects(row.get('turns'))),
  ):
    if not kept:
      raise DataError(f'{where}: `{name}` = {row.get(name)!r:.80} must be {rule}; evaluate again')
  for index, turn in enumerate(row['turns'], start=1):
    for name in _LEVELS:
      if math.isnan(number(turn.get(name))):
        raise DataError(f'{where}: turn {index}: `{name}` = {turn.get(name)!r:.80} must be a number; evaluate again')


def _is_list_of_objects(value: Any) -> bool:
  return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def start_state(row: Mapping[str, Any]) -> tuple[float, float] | None:
  """Anger and trust before the first turn; None where there was no turn."""
  if not row['turns']:
    return None
  first = row['turns'][0]
  return first['anger'] - first['anger_delta'], first['trust'] - first['trust_delta']
