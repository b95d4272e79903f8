"""The journal of a run: every finished stage of every item, durably, and what it cost.

One JSON-lines file in the folder of the output. A run that was killed reads it back, goes on where it
was, and asks no finished stage again.
"""

import collections
import fcntl
import os
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

from eijax import jsonl
from eijax.errors import DataError, UsageError

NAME = 'journal.jsonl'


class Journal:
  """Owns DIR/journal.jsonl. Safe to share between threads, not between processes (it locks).

  Attributes:
    ends: item -> its last entry, with `end` 'accepted' or 'rejected', `record`, `reason`.
    num_calls, tokens_in, tokens_out: over all runs in this folder.
    num_faults: answers that could not be used, and were asked for again.

  Args:
    folder: created if it is missing.
    settings: what a resumed run must have in common with the first one.
    resume: whether a journal that exists may be gone on with.
  Raises:
    UsageError: if the journal belongs to a run with other settings, or exists and `resume` is false.
  """

  def __init__(self, folder: str | os.PathLike, settings: Mapping[str, Any], resume: bool = True):
    self.folder = pathlib.Path(folder)
    path = self.folder / NAME
    self._lock = threading.Lock()
    self._values: dict[tuple[str, str], Any] = {}
    self._faults: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    self.ends: dict[str, dict[str, Any]] = {}
    self.num_calls = self.tokens_in = self.tokens_out = self.num_faults = 0
    self._appender = jsonl.Appender(path)
    try:
      self._lock_file(path)
      entries = jsonl.read_objects(path)
      if entries and not resume:
        raise UsageError(f'{path}: a run is there already, and --noresume was given; resume it or choose another --out')
      if not entries:
        self._appender.append({'settings': dict(settings)})
      else:
        self._compare(entries[0].get('settings'), settings)
      for entry in entries[1:]:
        self._take(entry, path)
    except BaseException:
      self.close()
      raise

  def _lock_file(self, path: pathlib.Path) -> None:
    self._lock_handle = open(path.with_name('.lock'), 'w', encoding='utf-8')  # pylint: disable=consider-using-with
    try:
      fcntl.flock(self._lock_handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise UsageError(f'{path}: another process is writing to this folder; wait for it or choose another --out') from None

  def _compare(self, first: Any, settings: Mapping[str, Any]) -> None:
    if not isinstance(first, Mapping):
      raise DataError(f'{self.folder / NAME}:1: must hold the `settings` of the run; choose another --out')
    for name in sorted({*first, *settings}):
      if first.get(name) != settings.get(name):
        raise UsageError(
            f'{self.folder}: was begun with {name}={first.get(name)!r}, now {name}={settings.get(name)!r}; '
            'use the first value to go on with it, or choose another --out'
        )

  def _take(self, entry: Mapping[str, Any], path: pathlib.Path) -> None:
    try:
      item = entry['item']
      if 'end' in entry:
        self.ends[item] = dict(entry)
      elif 'fault' in entry:
        self._faults[item, entry['stage']].append(entry['fault'])
        self.num_faults += 1
      else:
        self._values[item, entry['stage']] = entry['value']
      tokens = entry.get('tokens')
      if tokens:
        self.num_calls += 1
        self.tokens_in += tokens[0]
        self.tokens_out += tokens[1]
    except (KeyError, TypeError, IndexError) as error:
      raise DataError(f'{path}: an entry is no journal entry ({error!r}); choose another --out') from None

  @property
  def tokens(self) -> int:
    return self.tokens_in + self.tokens_out

  def value(self, item: str, stage: str) -> Any:
    """The value of a finished stage; None if it is not finished."""
    return self._values.get((item, stage))

  def faults(self, item: str, stage: str) -> list[str]:
    """Why earlier answers of this stage could not be used, the oldest first."""
    return list(self._faults.get((item, stage), ()))

  def finish(self, item: str, stage: str, value: Any, tokens: tuple[int, int] | None = None) -> None:
    """Keep the value of a stage. tokens: (in, out) of the call, None where there was none."""
    self._write({'item': item, 'stage': stage, 'value': value} | ({'tokens': list(tokens)} if tokens else {}))

  def fault(self, item: str, stage: str, reason: str, tokens: tuple[int, int]) -> None:
    self._write({'item': item, 'stage': stage, 'fault': reason, 'tokens': list(tokens)})

  def end(self, item: str, end: str, record: Mapping[str, Any] | None, reason: str | None = None) -> None:
    self._write({'item': item, 'end': end, 'record': record} | ({'reason': reason} if reason else {}))

  def _write(self, entry: dict[str, Any]) -> None:
    self._appender.append(entry)
    with self._lock:
      self._take(entry, self.folder / NAME)

  def num_ended(self, end: str) -> int:
    with self._lock:
      return sum(entry['end'] == end for entry in self.ends.values())

  def close(self) -> None:
    self._appender.close()
    handle = getattr(self, '_lock_handle', None)
    if handle is not None:
      handle.close()

  def __enter__(self) -> 'Journal':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()
