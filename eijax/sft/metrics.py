"""The rows of metrics.jsonl of a fine-tuning."""

from collections.abc import Sequence
import time

import jax
import numpy as np
import tqdm

from eijax.learning.supervised import PlannedBatch
from eijax.training import devices
from eijax.training.measures import Stopwatch, mean_of_updates
from eijax.training.run_folder import RunFolder
from eijax.training.scalars import ScalarLog


class MetricsRows:
  """Writes the metrics of a step once the devices have them, and shows the loss.

  Args:
    run, scalars: where they are written; None for a process that does not write.
    lengths: of all segments.
    num_steps_of_epochs: planned mini-batches of each epoch.
  """

  def __init__(
      self, run: RunFolder | None, scalars: ScalarLog | None, planned: Sequence[PlannedBatch], lengths: Sequence[int],
      num_steps_of_epochs: Sequence[int], progress: tqdm.tqdm,
  ):
    self.watch = Stopwatch()
    self._run, self._scalars, self._planned, self._lengths, self._progress = run, scalars, planned, lengths, progress
    self._ends = np.concatenate([[0], np.cumsum(num_steps_of_epochs)])
    self._held = None
    self._since = time.perf_counter()

  def hold(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Keep the metrics of a step that has been dispatched."""
    self._held = step, metrics

  def write(self, held_out: dict[str, float] | None = None) -> None:
    """Write what is held, if anything.

    Raises:
      EijaxError: the policy has diverged.
    """
    if self._held is None:
      return
    (step, metrics), self._held = self._held, None
    learned = mean_of_updates([metrics])
    batch = self._planned[step]
    now = time.perf_counter()
    total, self._since = now - self._since, now
    aside = dict.fromkeys(('seconds/evaluation', 'seconds/checkpoint'), 0.0) | self.watch.take()
    members = [index for row in batch.rows for index in row]
    num_positions = sum(self._lengths[index] for index in members)
    del learned['num_updates']  # One a step.
    row = {
        'step': step, 'epoch': float(np.interp(step + 1, self._ends, np.arange(len(self._ends)))), **learned,
        'row_length': batch.row_length, 'segments': len(members),
        'filled_fraction': num_positions / (batch.num_rows * batch.row_length), 'tokens_per_sec': num_positions / total,
        'peak_memory_mib': devices.peak_memory_mib(), **devices.device_memory(), 'seconds/update': total - sum(aside.values()), **aside,
        'seconds/total': total}
    if self._run is not None:
      self._run.add_metrics(row | _measured(held_out))
      self._scalars.add(step, row)
    self._progress.set_postfix_str(f'loss {learned["loss"]:.3f} nats/token', refresh=False)
    self._progress.update()

  def complete(self, step: int, held_out: dict[str, float] | None) -> None:
    """Give the row of a step that was written before its measurement was through what that has found by now."""
    self._run.update_metrics(step, _measured(held_out))


def _measured(held_out: dict[str, float] | None) -> dict[str, float | None]:
  return {'held_out_loss': held_out and held_out['loss'], 'held_out_perplexity': held_out and held_out['perplexity']}
