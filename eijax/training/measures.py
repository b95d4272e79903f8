"""What a step of a run took and gave: seconds of its phases, means over its updates."""

from collections.abc import Sequence
from concurrent.futures import Future
import contextlib
import time
from typing import Any

import jax
import numpy as np

from eijax.errors import EijaxError


class Stopwatch:
  """Seconds spent under each name since the last `take`."""

  def __init__(self):
    self._seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def phase(self, name: str):
    start = time.perf_counter()
    try:
      yield
    finally:
      self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

  def take(self) -> dict[str, float]:
    """The seconds so far; the watch begins anew."""
    seconds, self._seconds = self._seconds, {}
    return seconds


class TimedSampler:
  """A sampler (rollouts/token_policy.py) whose answers are timed; it has them when `submit` returns."""

  def __init__(self, sampler: Any, watch: Stopwatch, name: str):
    self._sampler, self._watch, self._name = sampler, watch, name

  @property
  def max_prompt_tokens(self) -> int:
    return self._sampler.max_prompt_tokens

  def submit(self, requests: Sequence[Any]) -> list[Future]:
    with self._watch.phase(self._name):
      return self._sampler.submit(requests)


def mean_of_updates(updates: list[dict]) -> dict[str, float]:
  """Metrics of a step's updates: means, but the largest of each maximum, and the number of tokens in all."""
  updates = jax.device_get(updates)
  result = {name: float(np.mean([update[name] for update in updates])) for name in updates[0]}
  for name in result:
    if name.endswith('_max'):
      result[name] = float(max(update[name] for update in updates))
  result['num_tokens'] = float(sum(update['num_tokens'] for update in updates))
  result['num_updates'] = len(updates)
  wrong = [name for name, value in result.items() if not np.isfinite(value)]
  if wrong:
    raise EijaxError(f'{wrong[0]}={result[wrong[0]]} must be finite: the policy has diverged; the last checkpoint is from '
                     'before, start anew with a lower --learning_rate or --max_grad_norm')
  return result
