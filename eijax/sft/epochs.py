"""Which conversations an update learns from: a function of their lengths, the settings and the seed alone.

A run that goes on after a kill plans anew, and skips the updates that it has behind it.
"""

from collections.abc import Sequence

import numpy as np

from eijax.learning.packing import PackingConfig, Segment, assign_rows
from eijax.learning.supervised import PlannedBatch, rows_at
from eijax.seeds import derive_seed

# Segments that are packed together: enough to fill rows well, and few enough for packing to take no time.
BLOCK = 4096


def plan_epoch(
    segments: Sequence[Segment], packing: PackingConfig, *, epoch: int, seed: int, multiple: int, purpose: str = 'fine-tuning',
) -> list[PlannedBatch]:
  """The mini-batches of one pass over the segments, each segment in one of them.

  Shuffled segments are packed block by block, and within a block by length: short ones into short rows, or where
  longer ones leave room. Rows are dealt out at random, and mini-batches come in a random order.

  Args:
    multiple: that the rows of every mini-batch are a multiple of.
  """
  rng = np.random.default_rng(derive_seed(purpose, seed, epoch))
  order = rng.permutation(len(segments))
  planned = []
  # Equal blocks: a small last one would be an update of a few conversations.
  for block in np.array_split(order, max(1, round(len(order) / BLOCK))):
    batches = []
    for row_length, rows in packed_by_length([(i, len(segments[i])) for i in block.tolist()], packing, multiple):
      num_rows = rows_at(packing, row_length, multiple)
      rows = [rows[i] for i in rng.permutation(len(rows))]
      parts = np.array_split(np.arange(len(rows)), -(-len(rows) // num_rows))
      batches += [PlannedBatch(row_length, num_rows, [rows[i] for i in part]) for part in parts]
    planned += [batches[i] for i in rng.permutation(len(batches))]
  return planned


def packed_by_length(
    members: Sequence[tuple[int, int]], packing: PackingConfig, multiple: int,
) -> list[tuple[int, list[list[int]]]]:
  """(row length, rows of segments), longest first: every segment in a row that holds it.

  Segments go into rows of the shortest length that holds them. Room in longer rows, and rows that a last mini-batch
  of longer ones lacks, take shorter ones first: otherwise rows would stay half empty, and a few long conversations
  would have whole updates to themselves, and weigh more than all others.

  Args:
    members: (index, length) of the segments, in a random order.
  """
  result, waiting = [], list(members)
  for number in reversed(range(len(packing.row_lengths))):
    row_length = packing.row_lengths[number]
    shorter = packing.row_lengths[number - 1] if number else 0
    own = [(index, length) for index, length in waiting if length > shorter]
    waiting = [(index, length) for index, length in waiting if length <= shorter]
    if not own:
      continue
    rows = [[own[i] for i in row] for row in assign_rows([length for _, length in own], row_length)]
    waiting = _fill(rows, waiting, row_length, rows_at(packing, row_length, multiple))
    result.append((row_length, [[index for index, _ in row] for row in rows]))
  return result


def _fill(rows: list[list[tuple[int, int]]], waiting: Sequence[tuple[int, int]], row_length: int, num_rows: int) -> list[tuple[int, int]]:
  """Put waiting segments where rows have room, and into new rows up to whole mini-batches; returns those left over."""
  left = []
  free = np.array([row_length - sum(length for _, length in row) for row in rows])
  for index, length in waiting:
    fits = np.flatnonzero(free >= length)
    if fits.size:
      place = int(fits[0])
    elif len(rows) % num_rows:
      place = len(rows)
      rows.append([])
      free = np.append(free, row_length)
    else:
      left.append((index, length))
      continue
    rows[place].append((index, length))
    free[place] -= length
  return left
