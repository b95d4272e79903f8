"""Which row of the cache a request gets, and which cached tokens it can start from. Host memory only."""

import dataclasses

import numpy as np

from eijax.sampling.samples import common_prefix


@dataclasses.dataclass(frozen=True)
class Seat:
  """A row for a request. The first `reused` cells of row `source` hold the beginning of its prompt."""

  row: int
  source: int
  reused: int


class SlotTable:
  """What every row of the cache holds.

  tokens: int32[B, S], the ids of a row, those included that its prompt will still
  append. held: int32[B], how many of them are in the cache. A row that is not busy
  keeps what it holds until another request takes it.
  """

  def __init__(self, num_slots: int, max_tokens: int):
    self.tokens = np.zeros((num_slots, max_tokens), np.int32)
    self.held = np.zeros(num_slots, np.int32)
    self._due = np.zeros(num_slots, np.int32)  # Ids of a row that are or will be in the cache.
    self._used = np.zeros(num_slots, np.int64)
    self._clock = 0
    self._busy = np.zeros(num_slots, bool)
    self._pinned: set[int] = set()  # Free rows that a seated request has yet to copy from.

  @property
  def num_busy(self) -> int:
    return int(self._busy.sum())

  def clear(self) -> None:
    """Forget everything, as when the cache is gone."""
    self.held[:] = self._due[:] = 0
    self._busy[:] = False
    self._pinned.clear()

  def seat(self, prompt: np.ndarray, worth_waiting: int) -> Seat | None:
    """Take a row for a prompt, or None where it had better wait.

    The last prompt token is never reused: its hidden state starts the response. A row
    that mostly holds this prompt is taken over; one that shares no more than its
    beginning, or is busy, is copied from.

    Args:
      prompt: int32[P].
      worth_waiting: a prompt that a busy row is about to hold this many more tokens of
        waits for them rather than compute them a second time.
    """
    free = [row for row in np.flatnonzero(~self._busy) if row not in self._pinned]
    if not free:
      return None
    shared = np.array([common_prefix(self.tokens[row, :self._due[row]], prompt[:-1]) for row in range(len(self.held))])
    usable = np.minimum(shared, self.held)
    # A free row before a busy one: it may be taken over.
    source = int(max(range(len(usable)), key=lambda row: (usable[row], not self._busy[row])))
    reused = int(usable[source])
    if shared.max() - reused >= worth_waiting:
      return None
    if source in free and 2 * reused >= self.held[source]:
      row = source
    else:
      row = int(min(free, key=lambda row: (self.held[row] > 0, self._used[row])))
      if not reused:
        source = row
      elif row != source and not self._busy[source]:
        self._pinned.add(source)
    # A row that is copied into holds nothing until that is done.
    self.held[row] = reused if row == source else 0
    self._busy[row] = True
    self.tokens[row, :len(prompt)] = prompt
    self._due[row] = len(prompt)
    return Seat(row=row, source=source, reused=reused)

  def unpin(self) -> None:
    """All copies are made."""
    self._pinned.clear()

  def append(self, row: int, ids: np.ndarray) -> None:
    """Sampled tokens, which the decode call has put into the cache."""
    start = self.held[row]
    self.tokens[row, start:start + len(ids)] = ids
    self.held[row] = self._due[row] = start + len(ids)

  def free(self, row: int) -> None:
    """The request in this row has ended; what is in the cache stays there."""
    self._clock += 1
    self._used[row] = self._clock
    self._busy[row] = False
    self._due[row] = self.held[row]
