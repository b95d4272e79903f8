"""What a sampler is asked for and what it gives: arrays of ids, no text.

Log-prob convention, for both sides of the importance ratio: behavior log-probs are
log_softmax(logits / temperature), before the id mask, top-k and top-p cut anything
off. The learner scores with the same temperature and no cut (learning/losses.py).
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from eijax.errors import UsageError
from eijax.sampling.config import SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampleRequest:
  """One response to sample.

  prompt_ids: int32[P]. seed: of this response alone, so that it does not depend on
  its neighbours. slot_key: names the talk, whose cache may be kept under it.
  """

  prompt_ids: np.ndarray
  seed: int
  slot_key: str


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EngineRequest(SampleRequest):
  """A response with settings of its own, told of as it comes.

  sampling: instead of the engine's; its max_new_tokens ends at the context's end.
  stop_ids: beside the engine's.
  on_tokens: called with each run of new ids and log-probs (int32[n], float32[n]), in
    the engine's thread, which it must not hold up.
  """

  slot_key: str = ''
  sampling: SamplingConfig | None = None
  stop_ids: tuple[int, ...] = ()
  on_tokens: Callable[[np.ndarray, np.ndarray], None] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
  """A sampled response, in lockstep with its log-probs.

  prompt_ids: int32[P]. response_ids: int32[R], R >= 1, stop token included.
  behavior_log_probs: float32[R]. truncated: the limit came before a stop token.
  """

  prompt_ids: np.ndarray
  response_ids: np.ndarray
  behavior_log_probs: np.ndarray
  truncated: bool


def as_request(
    request: SampleRequest | tuple[Sequence[int], int, str], *, vocab_size: int, max_prompt_tokens: int, why: str,
) -> SampleRequest:
  """A checked request; a plain (prompt ids, seed, slot key) is one as well.

  Args:
    why: where max_prompt_tokens comes from, for the message.
  Raises:
    UsageError: the prompt is empty, too long, or holds ids outside the vocabulary.
  """
  if isinstance(request, tuple):
    request = SampleRequest(prompt_ids=np.asarray(request[0], np.int32), seed=request[1], slot_key=request[2])
  size = len(request.prompt_ids)
  if not 0 < size <= max_prompt_tokens:
    raise UsageError(f'a prompt of {size} tokens must have 1 to {max_prompt_tokens} ({why})')
  if request.prompt_ids.min() < 0 or request.prompt_ids.max() >= vocab_size:
    raise UsageError(f'prompt ids must lie in 0..{vocab_size - 1}')
  return request


def common_prefix(held: np.ndarray, prompt: np.ndarray) -> int:
  """Number of leading ids that two int32 vectors share."""
  limit = min(len(held), len(prompt))
  differs = np.flatnonzero(held[:limit] != prompt[:limit])
  return int(differs[0]) if differs.size else limit
