"""Means with bootstrap intervals. Knows nothing of what the values measure."""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np

NUM_RESAMPLES = 10_000
# Resampled at a time: bounds memory where there are thousands of clusters.
_MAX_DRAWS = 4_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
  """A mean and its interval; all None where there are no values."""

  mean: float | None
  low: float | None
  high: float | None
  num: int


def clustered_mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    seed: int = 0,
    level: float = 0.95,
    num_resamples: int = NUM_RESAMPLES,
) -> Interval:
  """Mean of all values with a percentile bootstrap interval over clusters.

  Whole clusters are drawn with replacement, because values of one cluster (several talks
  on one scenario) are not independent; the statistic is the mean over all values drawn.
  Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

  Args:
    values: float[n].
    clusters: n labels.
    seed: the interval is a pure function of values, labels and seed, whatever the order.
  """
  if len(values) != len(clusters):
    raise ValueError(f'len(values)={len(values)} must equal len(clusters)={len(clusters)}')
  if len(values) == 0:
    return Interval(mean=None, low=None, high=None, num=0)
  # Sorted: a resumed run has its rows in another order, and must get the same interval.
  pairs = sorted(zip(map(str, clusters), map(float, values)))
  values = np.array([value for _, value in pairs])
  _, index = np.unique([label for label, _ in pairs], return_inverse=True)
  sums = np.bincount(index, weights=values)  # [C]
  counts = np.bincount(index)  # [C]
  num_clusters = len(sums)
  rng = np.random.default_rng(seed)
  means = []
  chunk = max(1, _MAX_DRAWS // num_clusters)
  for start in range(0, num_resamples, chunk):
    draws = rng.integers(num_clusters, size=(min(chunk, num_resamples - start), num_clusters))
    means.append(sums[draws].sum(axis=1) / counts[draws].sum(axis=1))
  tail = (1.0 - level) / 2.0
  low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
  return Interval(mean=float(values.mean()), low=float(low), high=float(high), num=len(values))
