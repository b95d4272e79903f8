"""How a run is launched: what belongs to the machine and the moment, and may differ when a run goes on."""

import dataclasses

from eijax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineConfig:
  """grace_secs: from SIGTERM to the end of the process, at the latest."""

  grace_secs: float = 25.0

  def __post_init__(self):
    if not self.grace_secs > 0:
      raise UsageError(f'grace_secs={self.grace_secs:g} must be above 0; a spot machine gives 30 seconds, a pod on one 15')
