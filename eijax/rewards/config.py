"""Settings of the training reward."""

import dataclasses

from eijax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardConfig:
  """Penalties on the outcome score. Defaults: arXiv 2606.15532, section 4.

  missing_think_penalty: times the share of turns without thought; thinking runs only.
  parse_penalty: once, if any turn is malformed.
  format_penalty: times the share of turns with a format fault; 0 is off.
  hard_veto: reward -1 for any talk with a format fault.
  """

  missing_think_penalty: float = 0.2
  parse_penalty: float = 0.05
  format_penalty: float = 0.0
  hard_veto: bool = False

  def __post_init__(self):
    for name in ('missing_think_penalty', 'parse_penalty', 'format_penalty'):
      value = getattr(self, name)
      if not 0.0 <= value <= 2.0:
        raise UsageError(f'{name}={value} must lie in 0..2, the width of the reward; lower it')
