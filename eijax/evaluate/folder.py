"""The folder of an evaluation: whose it is, who writes to it, and what it has cost so far.

    config.json  results.jsonl  summary.json  sessions.jsonl  failed.jsonl (after --retry_failed)
"""

import fcntl
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from eijax import jsonl, settings
from eijax.errors import EijaxError, UsageError
from eijax.evaluation.store import RESULTS

CONFIG = 'config.json'
SESSIONS = 'sessions.jsonl'
ROLES = ('model', 'simulator')
# A kill loses what was spent since the last note; the talks themselves are never lost.
_NOTE_EVERY_SECS = 5.0


class EvaluationFolder:
  """Owns the folder's settings and its lock. `close` gives the lock back, and so does any kind of death.

  Raises:
    UsageError: it holds another evaluation, or one and resume is false.
    EijaxError: it cannot be written, or another process is writing to it.
  """

  def __init__(self, path: str | os.PathLike, plain: Mapping[str, Any], *, resume: bool):
    self.path = pathlib.Path(path)
    self._config = self.path / CONFIG
    self._plain = dict(plain)
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self._lock = open(self.path / '.lock', 'ab')  # pylint: disable=consider-using-with
    except OSError as error:
      raise EijaxError(f'out={self.path} cannot be written ({error.strerror}); choose another --out') from None
    try:
      self._take(resume)
    except BaseException:
      self._lock.close()
      raise

  def _take(self, resume: bool) -> None:
    try:
      fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise EijaxError(f'out={self.path} is being written by another evaluation; wait for it, or choose another --out') from None
    self.resumed = self._config.exists()
    if not self.resumed:
      if (self.path / RESULTS).exists():
        raise UsageError(f'out={self.path} holds {RESULTS} but no {CONFIG}; restore that file, or choose another --out')
    elif not resume:
      raise UsageError(f'out={self.path} holds an evaluation already; drop --noresume to go on with it, or choose another --out')
    else:
      settings.check_same(self._config, self._plain, f'out={self.path} holds an evaluation', '--out')

  def claim(self) -> None:
    """Write the settings of a new evaluation, once all that they name has been found usable."""
    if not self.resumed:
      settings.write(self._config, self._plain)
      self.resumed = True

  def close(self) -> None:
    self._lock.close()

  def __enter__(self) -> 'EvaluationFolder':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()


class Sessions:
  """What an evaluation has cost, over all the times it was started.

  Each start is a session; its latest note counts.
  """

  def __init__(self, folder: str | os.PathLike):
    path = pathlib.Path(folder) / SESSIONS
    self._file = jsonl.Appender(path)
    latest = {row['session']: row for row in jsonl.read_objects(path)}
    self._past = list(latest.values())
    self._number = max(latest, default=-1) + 1
    self._start = self._noted = time.monotonic()

  def totals(self, tokens: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Cost of all sessions.

    Args:
      tokens: role -> totals of its meter in this session.
    Returns:
      {'seconds': float, 'sessions': int, 'tokens': {role: {requests, retries, prompt_tokens, ...}}}
    """
    summed = {role: dict(tokens[role]) for role in tokens}
    for row in self._past:
      for role, counts in row['tokens'].items():
        for name, count in counts.items():
          summed.setdefault(role, {})[name] = summed.get(role, {}).get(name, 0) + count
    seconds = sum(row['seconds'] for row in self._past) + time.monotonic() - self._start
    return {'seconds': round(seconds, 3), 'sessions': len(self._past) + 1, 'tokens': summed}

  def note(self, tokens: Mapping[str, Mapping[str, int]], *, now: bool = False) -> None:
    """Write down what this session has cost, at most every few seconds unless `now`."""
    time_now = time.monotonic()
    if now or time_now - self._noted >= _NOTE_EVERY_SECS:
      self._noted = time_now
      self._file.append({'session': self._number, 'seconds': round(time_now - self._start, 3),
                         'tokens': {role: dict(counts) for role, counts in tokens.items()}})

  def close(self) -> None:
    self._file.close()
