"""How a run is launched: what belongs to the machine and the moment, and may differ when a run goes on."""

import dataclasses

from eijax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineConfig:
  """grace_secs: from SIGTERM to the end of the process, at the latest. compilation_cache: see compilation.use_cache.
  profile_steps: first step (from 0) and end of a profile, None for none."""

  grace_secs: float = 25.0
  compilation_cache: str = ''
  profile_steps: tuple[int, int] | None = None

  def __post_init__(self):
    if not self.grace_secs > 0:
      raise UsageError(f'grace_secs={self.grace_secs:g} must be above 0; a spot machine gives 30 seconds, a pod on one 15')
    if self.profile_steps is not None and not 0 <= self.profile_steps[0] < self.profile_steps[1]:
      first, end = self.profile_steps
      raise UsageError(f'profile_steps={first}:{end} must be FIRST:END with 0 <= FIRST < END, e.g. 3:5 for the steps 3 and 4')


def parse_profile_steps(text: str | None) -> tuple[int, int] | None:
  """FIRST:END, or None for nothing. Raises UsageError."""
  if not text:
    return None
  parts = text.split(':')
  if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
    raise UsageError(f'profile_steps={text!r} must be FIRST:END with 0 <= FIRST < END, e.g. 3:5 for the steps 3 and 4')
  return int(parts[0]), int(parts[1])
