"""Where the seconds of a step go."""

from collections.abc import Sequence
from concurrent.futures import Future
import contextlib
import time
from typing import Any


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
