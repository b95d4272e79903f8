"""Series of numbers over steps: pick, smooth, thin. NaN marks what is missing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eijax.evaluation.reading import number

MAX_POINTS = 400


def pick(metrics: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
  """One metric over all steps, float64[n]."""
  return np.array([number(row.get(key)) for row in metrics])


def window_for(num_steps: int) -> int:
  """Steps of the rolling mean: a tenth of the run, at least 3."""
  return max(3, round(num_steps / 10))


def rolling_mean(values: np.ndarray, window: int) -> np.ndarray:
  """Mean over the last `window` steps, or as many as there were, leaving out missing ones.

  Only earlier steps count, so that the line never knows of a rise before it comes.
  """
  present = ~np.isnan(values)
  sums = np.concatenate([[0.0], np.cumsum(np.where(present, values, 0.0))])
  counts = np.concatenate([[0], np.cumsum(present)])
  last = np.arange(1, len(values) + 1)
  first = np.maximum(0, last - window)
  num = counts[last] - counts[first]
  return np.where(num > 0, (sums[last] - sums[first]) / np.maximum(num, 1), np.nan)


def thin(values: np.ndarray, max_points: int = MAX_POINTS) -> np.ndarray:
  """Mean of runs of neighbours, so that a long training does not swell the page."""
  size = -(-len(values) // max_points)
  if size <= 1:
    return values
  padded = np.concatenate([values, np.full(-len(values) % size, np.nan)]).reshape(-1, size)
  num = (~np.isnan(padded)).sum(axis=1)
  return np.where(num > 0, np.nansum(padded, axis=1) / np.maximum(num, 1), np.nan)
