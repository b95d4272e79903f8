"""Which conversations a policy is fine-tuned on, and which are held out."""

import dataclasses

from eijax.errors import UsageError

TOO_LONG = ('cut', 'drop')


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """Sources are chat JSONL files, folders that tensorflow-datasets has prepared, or names of its data sets.

  sources: to train on. split: of those that are data sets.
  held_out: one source to measure on; empty takes held_out_fraction of `sources` away for that, by content: copies of
    a conversation stay on one side. held_out_split: of `held_out`.
  data_dir: where data sets stand; empty for the default of tensorflow-datasets.
  too_long: of a conversation beyond the longest row `cut` keeps the turns that fit, `drop` keeps nothing.
  """

  sources: tuple[str, ...]
  split: str = 'train'
  held_out: str = ''
  held_out_split: str = 'test'
  held_out_fraction: float = 0.05
  data_dir: str = ''
  too_long: str = 'cut'

  def __post_init__(self):
    if not self.sources:
      raise UsageError('data= names nothing to train on; give a chat JSONL file, or the name of a tensorflow-datasets set')
    if not 0 <= self.held_out_fraction < 1:
      raise UsageError(f'held_out_fraction={self.held_out_fraction} must lie in [0, 1); 0 holds nothing out')
    if self.too_long not in TOO_LONG:
      raise UsageError(f'too_long={self.too_long!r} is unknown; use one of {", ".join(TOO_LONG)}')
