"""When the user ends the talk: settled, idling, or breaking off; hardly ever before round 4."""

from collections.abc import Sequence

SETTLED_ROUNDS = 3
SETTLED_FROM = 5
IDLE_ROUNDS = 4
IDLE_FROM = 6
BREAK_ANGER = 95
BREAK_FROM = 4


def decide(
  request, sheet, credits: Sequence, readings: Sequence, anger: int, trust: int
) -> tuple[bool, str]:
  """Return (stop, reason) for the state after this round.

  Settled: the last rounds were all concrete, every unspoken need was met, and the mood
  is good. Idling: the last rounds were empty or the same line. Breaking off: anger >= 95.
  """
  if anger >= BREAK_ANGER and request.round >= BREAK_FROM:
    return True, 'broke off'
  last = credits[-SETTLED_ROUNDS:]
  if (
    request.round >= SETTLED_FROM
    and len(last) == SETTLED_ROUNDS
    and all(entry.good for entry in last)
  ):
    met = {key for entry in credits for key in entry.used if key[0] == 'needs'}
    if anger <= 25 and trust >= 70 and len(met) >= sheet.num_needs:
      return True, 'settled'
  if request.round >= IDLE_FROM and len(credits) >= IDLE_ROUNDS:
    idle = all(
      entry.flat and (entry.repeats or 'empty' in reading.flags)
      for entry, reading in zip(credits[-IDLE_ROUNDS:], readings[-IDLE_ROUNDS:])
    )
    if idle:
      return True, 'idling'
  return False, ''
