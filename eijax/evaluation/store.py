"""A folder of results: rows appended durably, one summary replaced atomically."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from eijax import jsonl
from eijax.errors import DataError

RESULTS = 'results.jsonl'
SUMMARY = 'summary.json'


class ResultStore:
  """Owns results.jsonl and summary.json of one evaluation.

  A row that `add` returned from is kept whatever happens; opening cuts a last row that a
  kill left incomplete. Safe to share between threads.
  """

  def __init__(self, folder: str | os.PathLike):
    self.folder = pathlib.Path(folder)
    self._appender = jsonl.Appender(self.folder / RESULTS)
    self.rows: list[dict[str, Any]] = read_rows(self.folder)

  def add(self, row: dict[str, Any]) -> None:
    self._appender.append(row)
    self.rows.append(row)

  def write_summary(self, summary: Mapping[str, Any]) -> None:
    jsonl.write_json(self.folder / SUMMARY, dict(summary))

  def close(self) -> None:
    self._appender.close()

  def __enter__(self) -> 'ResultStore':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()


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
