"""What a step of a run took and gave: seconds of its phases, means over its updates."""

import contextlib
import time

import jax
import numpy as np

from eijax.errors import EijaxError


class Stopwatch:
  """Seconds spent in each named phase of a step."""

  def __init__(self):
    self.seconds: dict[str, float] = {}

  @contextlib.contextmanager
  def phase(self, name: str):
    start = time.perf_counter()
    try:
      yield
    finally:
      self.seconds[f'seconds/{name}'] = self.seconds.get(f'seconds/{name}', 0.0) + time.perf_counter() - start


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
