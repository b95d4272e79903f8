"""The order in which training meets the scenarios: stratified, seeded, without state."""

import random
from collections.abc import Sequence

from eijax.scenarios.record import SCENES, Scenario


def step_scenarios(
    scenarios: Sequence[Scenario], step: int, num: int, seed: int
) -> tuple[Scenario, ...]:
  """Choose the scenarios of one training step.

  A pure function of its arguments, so that a resumed run needs no cursor. Scenes get
  numbers within one of each other, in every step and over all steps. A scene's
  scenarios all come once before any comes again, and one does not come again within
  half a pass.

  Args:
    scenarios: all training scenarios; scenes that are not present are left out.
    step: from 0.
    num: scenarios per step.
    seed: seed of the run.
  Raises:
    ValueError: if there is no scenario, or step or num is out of range.
  """
  if not scenarios:
    raise ValueError('scenarios is empty, but must hold at least one; check the folder')
  if step < 0 or num < 1:
    raise ValueError(f'step={step} must be >= 0 and num={num} must be >= 1')
  pools = [[s for s in scenarios if s.scene == scene] for scene in SCENES]
  pools = [pool for pool in pools if pool]
  random.Random(f'{seed}/scenes').shuffle(pools)
  chosen = []
  for slot in range(step * num, (step + 1) * num):
    pool = pools[slot % len(pools)]
    # Scenes take turns, so this scene has been drawn from once in each earlier cycle.
    chosen.append(_nth(pool, slot // len(pools), seed))
  return tuple(chosen)


def _nth(pool: Sequence[Scenario], draw: int, seed: int) -> Scenario:
  """The draw-th scenario (from 0) of one scene, over endless passes."""
  epoch, position = divmod(draw, len(pool))
  order = list(pool)
  random.Random(f'{seed}/{pool[0].scene}').shuffle(order)
  # Each pass reshuffles either half by itself: a full reshuffle could put a scenario at
  # the end of one pass and the start of the next, twice in one step.
  half = (len(pool) + 1) // 2
  first, second = order[:half], order[half:]
  rng = random.Random(f'{seed}/{pool[0].scene}/{epoch}')
  rng.shuffle(first)
  rng.shuffle(second)
  return (first + second)[position]
