"""A folder of results: rows appended durably, one summary replaced atomically."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from eijax import jsonl
from eijax.errors import DataError

RESULTS = 'results.jsonl'
SUMMARY = 'summary.json'
SET_ASIDE = 'failed.jsonl'
# By far the largest part of a row, and no statistic of a summary needs it.
_LEFT_ON_DISK = frozenset({'turns', 'closing'})

Place = tuple[str, int]


def place_of(row: Mapping[str, Any]) -> Place:
  """What a row is the result of: scenario id and sample."""
  return row['id'], row.get('sample', 0)


def _brief(row: Mapping[str, Any], path: pathlib.Path) -> dict[str, Any]:
  """A row without its talk. A summary is made of these, so that memory does not grow with the talks."""
  missing = [name for name in ('id', 'scene_tag', 'score') if not isinstance(row, Mapping) or name not in row]
  if missing:
    raise DataError(f'{path}: holds a row without `{missing[0]}`; restore the file from a copy, or remove that row')
  brief = {name: value for name, value in row.items() if name not in _LEFT_ON_DISK}
  brief['flagged_turns'] = sum(bool(turn.get('flags')) for turn in row.get('turns', ()))
  return brief


class ResultStore:
  """Owns results.jsonl and summary.json of one evaluation.

  Rows that `add` returned from are kept whatever happens; opening cuts a last row that a
  kill left incomplete. Safe to share between threads.

  Attributes:
    rows: all rows without their talks, in the order of their ends.
  """

  def __init__(self, folder: str | os.PathLike):
    self.folder = pathlib.Path(folder)
    self._path = self.folder / RESULTS
    self._appender = jsonl.Appender(self._path)
    self.rows: list[dict[str, Any]] = [_brief(row, self._path) for _, row in jsonl.read(self._path)]

  def add(self, *rows: dict[str, Any]) -> None:
    """Write rows, all for one wait for the disk."""
    self._appender.extend(rows)
    self.rows += [_brief(row, self._path) for row in rows]

  def finish(self, order: Mapping[Place, int], summary: Mapping[str, Any]) -> None:
    """Put the rows in an order of their own, whatever order they ended in, and write the summary.

    Args:
      order: of every place that has a row.
    """
    self._appender.close()
    jsonl.rewrite_lines(self._path, lambda row: order[place_of(row)])
    jsonl.write_json(self.folder / SUMMARY, dict(summary))

  def close(self) -> None:
    self._appender.close()

  def __enter__(self) -> 'ResultStore':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()


def set_failed_aside(folder: str | os.PathLike) -> int:
  """Move the rows of failed talks to failed.jsonl, so that they are held again; returns how many."""
  path = pathlib.Path(folder) / RESULTS
  if not path.exists():
    return 0
  jsonl.Appender(path).close()  # Cuts a last row that a kill left incomplete.
  num_failed = 0
  with jsonl.Appender(pathlib.Path(folder) / SET_ASIDE) as aside:
    for _, row in jsonl.read(path):
      if row['score'] is None:
        num_failed += 1
        aside.append(row)
  if num_failed:  # The summary counts them.
    (pathlib.Path(folder) / SUMMARY).unlink(missing_ok=True)
  numbers = iter(range(1 << 62))
  jsonl.rewrite_lines(path, lambda row: None if row['score'] is None else next(numbers))
  return num_failed


def read_rows(folder: str | os.PathLike) -> list[dict[str, Any]]:
  """Rows of an evaluation folder, without a last one that a kill cut short."""
  return jsonl.read_objects(pathlib.Path(folder) / RESULTS)


def read_summary(folder: str | os.PathLike) -> dict[str, Any]:
  """Summary of an evaluation folder; raises DataError where it is missing or broken."""
  path = pathlib.Path(folder) / SUMMARY
  summary = jsonl.read_json(path)
  if not isinstance(summary, dict):
    raise DataError(f'{path}: must hold a JSON object, not a {type(summary).__name__}; evaluate again')
  return summary
