"""Which scenarios of a split are played, and how to tell later that they were these."""

import hashlib
from collections.abc import Sequence

from eijax.errors import UsageError
from eijax.scenarios.record import SCENES, Scenario
from eijax.seeds import derive_seed


def select(scenarios: Sequence[Scenario], scenes: Sequence[str] = (), limit: int = 0) -> list[Scenario]:
  """Choose scenarios, scene by scene in equal shares, in the order of the split.

  Which ones depends on their ids alone: every model meets the same, and those of a small
  limit are among those of a larger one.

  Args:
    scenes: those to choose from; empty for all.
    limit: number of scenarios; 0 for all. A scene with too few leaves its share to the others.
  Raises:
    UsageError: an unknown scene, or none with a scenario in it.
  """
  unknown = [scene for scene in scenes if scene not in SCENES]
  if unknown:
    raise UsageError(f'scenes={",".join(scenes)}: {unknown[0]!r} is unknown; use some of {", ".join(SCENES)}')
  pools = [
      sorted((s for s in scenarios if s.scene == scene), key=lambda s: (derive_seed('selection', s.id), s.id))
      for scene in SCENES if scene in scenes or not scenes
  ]
  num_left = sum(map(len, pools))
  if not num_left:
    raise UsageError(f'scenes={",".join(scenes) or "all"} leaves no scenario of {len(scenarios)}; choose others')
  num_left = min(limit or num_left, num_left)
  chosen: set[str] = set()
  position = 0
  while len(chosen) < num_left:
    # A round takes one of each scene, so that any limit is as even as it can be.
    for pool in pools:
      if position < len(pool) and len(chosen) < num_left:
        chosen.add(pool[position].id)
    position += 1
  return [scenario for scenario in scenarios if scenario.id in chosen]


def digest(scenarios: Sequence[Scenario]) -> str:
  """Hash of all that a talk depends on; equal for equal scenarios, wherever their files lie."""
  content = '\x1e'.join(
      repr((s.id, s.scene, s.aggressor_prompt, s.opening_line, s.defender_prompt, s.anchors, s.appraisal)) for s in scenarios
  )
  return hashlib.blake2b(content.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()
