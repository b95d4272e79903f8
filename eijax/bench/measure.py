"""Wall and CPU time of a call, and the line that says so."""

from collections.abc import Callable
import dataclasses
import json
import resource
import statistics
import time
from typing import Any

import jax

from eijax.config import RunConfig


@dataclasses.dataclass(frozen=True)
class Timing:
  """Seconds. first: of the call that compiles. wall, cpu: of each timed call; cpu adds up all threads of this process."""

  first: float
  wall: list[float]
  cpu: list[float]


def timed(call: Callable[[], Any], reps: int) -> Timing:
  """Time `call`, which returns when its results are there, after two calls that do not count."""
  start = time.perf_counter()
  call()
  first = time.perf_counter() - start
  call()
  wall, cpu = [], []
  for _ in range(reps):
    start, spent = time.perf_counter(), time.process_time()
    call()
    wall.append(time.perf_counter() - start)
    cpu.append(time.process_time() - spent)
  return Timing(first, wall, cpu)


def peak_bytes() -> int:
  """Most memory in use so far: of the first device where it keeps count, else of this process."""
  stats = jax.local_devices()[0].memory_stats()
  return stats['peak_bytes_in_use'] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def report(name: str, timing: Timing, num_tokens: int, config: RunConfig, **more: Any) -> None:
  """Print one JSON line.

  Args:
    num_tokens: of one call, which tokens_per_s counts.
    more: further values of the line.
  """
  median = statistics.median(timing.wall)
  policy = dataclasses.asdict(config.policy)
  line = {
      'bench': name, 'tokens_per_s': round(num_tokens / median, 1), 'tokens_per_s_best': round(num_tokens / min(timing.wall), 1),
      'seconds': round(median, 5), 'cpu_seconds': round(statistics.median(timing.cpu), 5), 'first_call_seconds': round(timing.first, 2),
      'peak_mib': peak_bytes() // 2**20, **more,
      'config': {'policy': policy, 'num_params': config.policy.num_params, 'rows': config.packing.rows_per_minibatch,
                 'row_length': config.packing.row_lengths[-1], 'chunk_length': config.learner.chunk_length,
                 'num_micro_batches': config.learner.num_micro_batches, 'mesh': config.mesh, 'reps': len(timing.wall),
                 'devices': f'{len(jax.devices())} x {jax.devices()[0].device_kind}', 'jax': jax.__version__},
  }
  print(json.dumps(line), flush=True)
