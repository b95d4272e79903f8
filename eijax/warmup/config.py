"""Settings of the supervised warm-up of a policy that starts from random weights."""

import dataclasses

from eijax.errors import UsageError
from eijax.learning.optimizer import OptimizerConfig
from eijax.learning.packing import PackingConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarmupConfig:
  """num_exercises short talks over rewritten sheets, then num_talks talks, num_passes times in other words.

  packing: rows of the warm-up. rows_per_minibatch counts rows of the longest length, shorter ones are more in
    number; num_minibatches is worked out from the corpus.
  """

  num_exercises: int
  num_talks: int
  num_passes: int
  packing: PackingConfig
  optimizer: OptimizerConfig

  def __post_init__(self):
    for name in ('num_exercises', 'num_talks', 'num_passes'):
      if getattr(self, name) < 1:
        raise UsageError(f'warm-up {name}={getattr(self, name)} must be at least 1')
