"""Which conversations an update learns from: a function of their lengths, the settings and the seed alone.

A run that goes on after a kill plans anew, and skips the updates that it has behind it.
"""

from collections.abc import Sequence

import numpy as np

from eijax.learning.packing import PackingConfig, Segment
from eijax.learning.supervised import PlannedBatch, plan_batches, rows_at
from eijax.seeds import derive_seed

# Segments that are packed together: enough to fill rows well, and few enough for packing to take no time.
BLOCK = 4096
# Share of the positions of a mini-batch that packing fills for certain, more or less: what is planned above it spills over.
FILL = 0.9


def plan_epoch(
    segments: Sequence[Segment], packing: PackingConfig, *, epoch: int, seed: int, multiple: int, purpose: str = 'fine-tuning',
) -> list[PlannedBatch]:
  """The mini-batches of one pass over the segments, each segment in one of them.

  Shuffled segments are packed block by block, and within a block by length: the short ones into short rows.

  Args:
    multiple: that the rows of every mini-batch are a multiple of.
  """
  order = np.random.default_rng(derive_seed(purpose, seed, epoch)).permutation(len(segments))
  planned = []
  # Equal blocks: a small last one would be an update of a few conversations.
  for number, block in enumerate(np.array_split(order, max(1, round(len(order) / BLOCK)))):
    members = block.tolist()
    kinds = kinds_by_length(members, [len(segments[i]) for i in members], packing, multiple)
    planned += plan_batches(segments, kinds, packing, seed=derive_seed(purpose, seed, epoch, number), purpose=purpose, multiple=multiple)
  return planned


def kinds_by_length(
    members: Sequence[int], lengths: Sequence[int], packing: PackingConfig, multiple: int,
) -> list[list[int]]:
  """Group segments by the shortest row that holds them, longest rows first.

  Room that a group leaves in its last mini-batch is filled from the next shorter ones: otherwise a few long
  conversations would have whole updates to themselves, and weigh more than all others.
  """
  waiting = list(zip(members, lengths))
  kinds = []
  for number in reversed(range(len(packing.row_lengths))):
    row_length = packing.row_lengths[number]
    shortest = packing.row_lengths[number - 1] + 1 if number else 0
    kind = [(member, length) for member, length in waiting if length >= shortest]
    if not kind:
      continue
    waiting = [(member, length) for member, length in waiting if length < shortest]
    capacity = rows_at(packing, row_length, multiple) * row_length * FILL
    room = -sum(length for _, length in kind) % capacity
    left = []
    for member, length in sorted(waiting, key=lambda pair: -pair[1]):
      if length <= room:
        kind.append((member, length))
        room -= length
      else:
        left.append((member, length))
    waiting = left
    kinds.append([member for member, _ in kind])
  return kinds
