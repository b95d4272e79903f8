"""Write down talks that have ended without holding up those that go on.

The wait for a disk is milliseconds or more, and the thread that moves all talks would spend it idle, just when
many end together. A thread of its own writes what has come meanwhile for the price of one wait.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence

from eijax.evaluation.store import ResultStore
from eijax.rollouts.ports import Rollout

# Talks that may wait for the disk: with more, those that go on wait too, so that memory has a bound.
MOST_WAITING = 64


class RowWriter:
  """Owns the thread that adds rows to a store. Leaving the context writes all that was put.

  Args:
    row_of: makes the row of a talk; called in the thread.
    on_written: called in the thread once the row of a talk is on disk, talk by talk in the order of the ends.
    waits: whether `put` returns only after that.
  """

  def __init__(
      self, store: ResultStore, row_of: Callable[[Rollout], dict], on_written: Callable[[Rollout], None] | None, *, waits: bool
  ):
    self._store, self._row_of, self._on_written, self._waits = store, row_of, on_written, waits
    self._queue: queue.Queue[Rollout | None] = queue.Queue(MOST_WAITING)
    self._error: BaseException | None = None
    self._thread = threading.Thread(target=self._run, name='row writer', daemon=True)
    self._thread.start()

  def put(self, rollout: Rollout) -> None:
    """Hand over a talk that has ended.

    Raises:
      EijaxError, or whatever else a callback raised: this talk or an earlier one was not written; none is from then on.
    """
    self._check()
    self._queue.put(rollout)
    if self._waits:
      self._queue.join()
      self._check()

  def _check(self) -> None:
    if self._error is not None:
      raise self._error

  def _run(self) -> None:
    is_open = True
    while is_open:
      batch = [self._queue.get()]
      with contextlib.suppress(queue.Empty):
        while True:
          batch.append(self._queue.get_nowait())
      is_open = None not in batch
      try:
        if self._error is None:
          self._write([rollout for rollout in batch if rollout is not None])
      except BaseException as error:  # pylint: disable=broad-exception-caught
        self._error = error  # Raised where the talks are moved.
      for _ in batch:
        self._queue.task_done()

  def _write(self, rollouts: Sequence[Rollout]) -> None:
    if rollouts:
      self._store.add(*map(self._row_of, rollouts))
    for rollout in rollouts:
      if self._on_written is not None:
        self._on_written(rollout)

  def __enter__(self) -> 'RowWriter':
    return self

  def __exit__(self, kind: type[BaseException] | None, *_) -> None:
    self._queue.put(None)
    self._thread.join()
    if kind is None:
      self._check()
