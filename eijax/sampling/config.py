"""How tokens are chosen, and the shapes that the sampler compiles for."""

import dataclasses

from eijax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingConfig:
  """temperature > 0; top_p in (0, 1], 1 keeps all; top_k >= 0, 0 keeps all; max_new_tokens per turn."""

  temperature: float = 1.0
  top_p: float = 1.0
  top_k: int = 0
  max_new_tokens: int = 1024

  def __post_init__(self):
    if not self.temperature > 0:
      raise UsageError(f'temperature={self.temperature} must be above 0; use a small value such as 0.01 for near-greedy')
    if not 0 < self.top_p <= 1:
      raise UsageError(f'top_p={self.top_p} must lie in (0, 1]; 1 keeps every token')
    if self.top_k < 0:
      raise UsageError(f'top_k={self.top_k} must be at least 0; 0 keeps every token')
    if self.max_new_tokens < 1:
      raise UsageError(f'max_new_tokens={self.max_new_tokens} must be at least 1')


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerShapes:
  """Fixed shapes of a sampler.

  num_slots: rows of a batch. spans: cache lengths that a call may read, ascending;
  the last is the longest context, prompt and response together. chunks: tokens
  that one prefill call appends to a row, ascending.
  """

  num_slots: int
  spans: tuple[int, ...]
  chunks: tuple[int, ...]

  def __post_init__(self):
    for name in ('spans', 'chunks'):
      values = getattr(self, name)
      if not values or min(values) < 1 or list(values) != sorted(set(values)):
        raise UsageError(f'{name}={values} must be positive and ascending, e.g. (512, 1024)')
    if self.num_slots < 1:
      raise UsageError(f'num_slots={self.num_slots} must be at least 1')

  @property
  def max_tokens(self) -> int:
    return self.spans[-1]

  def span_for(self, length: int) -> int:
    """The shortest span of at least `length` cells."""
    return next(span for span in self.spans if span >= length)

  def chunk_for(self, length: int) -> int:
    """The shortest chunk of at least `length` tokens, else the longest."""
    return next((chunk for chunk in self.chunks if chunk >= length), self.chunks[-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineConfig:
  """How a continuous-batching engine cuts its work into calls of the device.

  decode_steps: tokens that one decode call samples in each row; new requests wait for
  its end, so few mean quick answers and many mean little overhead. prefill_rows: rows
  that one prefill call appends to. num_stop_ids: most stop ids of a request.
  num_candidates: a request with top_k up to this many is drawn without sorting the
  vocabulary.
  """

  decode_steps: int = 8
  prefill_rows: int = 4
  num_stop_ids: int = 8
  num_candidates: int = 64

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if getattr(self, field.name) < 1:
        raise UsageError(f'{field.name}={getattr(self, field.name)} must be at least 1')
