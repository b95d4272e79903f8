"""How a run is launched: what belongs to the machine and the moment, and may differ when a run goes on."""

import dataclasses

from eijax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineConfig:
  """grace_secs: from SIGTERM to the end of the process, at the latest. compilation_cache: see compilation.use_cache.
  profile_steps: first step (from 0) and end of a profile, None for none. coordinator, num_processes, process_id: address of
  process 0 as HOST:PORT, number of processes and which of them this is; all or none. peer_timeout_secs: silence after
  which another process is taken for gone. join_timeout_secs: how long to wait for all to be there."""

  grace_secs: float = 25.0
  compilation_cache: str = ''
  profile_steps: tuple[int, int] | None = None
  coordinator: str | None = None
  num_processes: int | None = None
  process_id: int | None = None
  peer_timeout_secs: float = 60.0
  join_timeout_secs: float = 300.0

  def __post_init__(self):
    if not self.grace_secs > 0:
      raise UsageError(f'grace_secs={self.grace_secs:g} must be above 0; a spot machine gives 30 seconds, a pod on one 15')
    if self.profile_steps is not None and not 0 <= self.profile_steps[0] < self.profile_steps[1]:
      first, end = self.profile_steps
      raise UsageError(f'profile_steps={first}:{end} must be FIRST:END with 0 <= FIRST < END, e.g. 3:5 for the steps 3 and 4')
    for name in ('peer_timeout_secs', 'join_timeout_secs'):
      if getattr(self, name) < 1:
        raise UsageError(f'{name}={getattr(self, name):g} must be at least 1')
    group = (self.coordinator, self.num_processes, self.process_id)
    if any(value is not None for value in group):
      if None in group:
        raise UsageError('coordinator={}, num_processes={}, process_id={}: give all three, or none'.format(*group))
      if not self.coordinator.rpartition(':')[2].isdecimal() or ':' not in self.coordinator:
        raise UsageError(f'coordinator={self.coordinator!r} must be HOST:PORT of process 0, e.g. 10.0.0.2:8476')
      if not 0 <= self.process_id < self.num_processes:
        raise UsageError(f'process_id={self.process_id} must lie in 0..{self.num_processes - 1}, below num_processes={self.num_processes}')

  def check_profile(self, num_steps: int) -> None:
    """Refuse a profile of steps that the run does not have, with a UsageError."""
    if self.profile_steps is not None and self.profile_steps[0] >= num_steps:
      raise UsageError('profile_steps={}:{} must begin below num_steps={}'.format(*self.profile_steps, num_steps))


def parse_profile_steps(text: str | None) -> tuple[int, int] | None:
  """FIRST:END, or None for nothing. Raises UsageError."""
  if not text:
    return None
  parts = text.split(':')
  if len(parts) != 2 or not all(part.isascii() and part.isdecimal() for part in parts):
    raise UsageError(f'profile_steps={text!r} must be FIRST:END with 0 <= FIRST < END, e.g. 3:5 for the steps 3 and 4')
  return int(parts[0]), int(parts[1])
