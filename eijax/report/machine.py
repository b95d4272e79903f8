"""Time and memory of a run, in words and rows."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from eijax.report.series import pick


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """One row of the table of a step's time, as it is shown."""

  name: str
  note: str
  secs: str
  share: str


# Name, what it is, the metric whose mean it is, and those that are taken off it.
_PARTS = (
    ('Talks: the policy', 'sampling of its turns', 'rollout_secs/sampling', ()),
    ('Talks: weights', 'handed to the sampler', 'rollout_secs/weights', ()),
    ('Talks: the rest', 'the simulator, mostly', 'seconds/rollout', ('rollout_secs/sampling', 'rollout_secs/weights')),
    ('Learning: packing', 'rewards, advantages, rows', 'update_secs/packing', ()),
    ('Learning: devices', 'gradients and updates', 'update_secs/devices', ()),
    ('Checkpoints', '', 'seconds/checkpoint', ()),
)


def breakdown(metrics: Sequence[Mapping[str, Any]]) -> list[Part]:
  """Mean seconds of each part of a step and their share of all; empty where a run has not measured them."""
  means = {}
  for name, note, key, less in _PARTS:
    values = [_mean(metrics, one) for one in (key, *less)]
    if None in values:
      return []
    means[name, note] = max(0.0, values[0] - sum(values[1:]))
  total = sum(means.values())
  if not total:
    return []
  return [Part(name=name, note=note, secs=f'{mean:.2f}', share=f'{100 * mean / total:.0f} %') for (name, note), mean in means.items()]


def memory_words(metrics: Sequence[Mapping[str, Any]]) -> str:
  """The largest memory of process and devices; empty where nothing is known."""
  parts = []
  host, peak, limit = (_largest(metrics, key) for key in ('peak_memory_mib', 'device_peak_memory_mib', 'device_memory_limit_mib'))
  if host is not None:
    parts.append(f'{host / 1024:.1f} GiB of the host')
  if peak is not None:
    parts.append(f'{peak / 1024:.1f}' + (f' of {limit / 1024:.1f}' if limit is not None else '') + ' GiB of the fullest device')
  return f'Largest memory: {", ".join(parts)}.' if parts else ''


def _mean(metrics: Sequence[Mapping[str, Any]], key: str) -> float | None:
  values = pick(metrics, key)
  return float(np.nanmean(values)) if len(values) and not np.isnan(values).all() else None


def _largest(metrics: Sequence[Mapping[str, Any]], key: str) -> float | None:
  values = pick(metrics, key)
  return float(np.nanmax(values)) if len(values) and not np.isnan(values).all() else None
