"""Paired differences: mean, interval, permutation test, effect size. Knows nothing of what is measured."""

import dataclasses
import statistics
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import scipy.stats

from eijax.evaluation.statistics import clustered_mean

NUM_PERMUTATIONS = 9_999
# Sign flips held at a time, as float64.
_MAX_FLIPS = 4_000_000
# Differences of means of the same decimals may miss 0 by rounding only.
_ROUNDING = 1e-9
# Two-sided 5 % and 80 % power: the sum of the normal quantiles at 0.975 and 0.8.
_POWER_QUANTILES = scipy.stats.norm.ppf(0.975) + scipy.stats.norm.ppf(0.8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paired:
  """Differences over clusters, one value a cluster. Floats are None where there are too few.

  low, high: 95 % bootstrap interval of the mean. effect_size: mean over standard
  deviation of the differences (Cohen's d_z). detectable: the true difference that a
  5 % test on as many clusters with this spread would find in 80 % of cases.
  """

  num: int
  mean: float | None
  low: float | None
  high: float | None
  p_value: float | None
  effect_size: float | None
  detectable: float | None
  wins: int
  ties: int
  losses: int


def cluster_means(values: Sequence[tuple[Hashable, float]]) -> dict[Hashable, float]:
  """Mean of each label's values: several samples of a cluster count as one value."""
  by_label: dict[Hashable, list[float]] = {}
  for label, value in values:
    by_label.setdefault(label, []).append(value)
  # fmean is exact to the last bit whatever the order.
  return {label: statistics.fmean(items) for label, items in by_label.items()}


def summarise_differences(
    differences: Mapping[str, float], *, seed: int = 0, tie_margin: float = 0.0,
    num_permutations: int = NUM_PERMUTATIONS,
) -> Paired:
  """Describe and test differences between two means, one difference a cluster.

  The test flips signs: where the two sides do not differ, each difference is as likely to
  be its negative. Two-sided, over all 2^num flips where these are at most
  num_permutations, else over that many drawn. Source: Good, Permutation, Parametric and
  Bootstrap Tests of Hypotheses, 2005, chapter 3; scipy.stats.permutation_test.

  Args:
    differences: cluster label -> value. The result does not depend on their order.
    tie_margin: largest absolute difference that counts as a tie.
  """
  values = np.array([differences[label] for label in sorted(differences)], np.float64)
  num = len(values)
  interval = clustered_mean(list(values), sorted(differences), seed=seed)
  spread = float(values.std(ddof=1)) if num > 1 else None
  ties = np.abs(values) <= tie_margin + _ROUNDING
  return Paired(
      num=num,
      mean=interval.mean,
      low=interval.low if num > 1 else None,
      high=interval.high if num > 1 else None,
      p_value=_sign_flip_p_value(values, seed, num_permutations) if num else None,
      effect_size=float(values.mean()) / spread if spread else None,
      detectable=None if spread is None else float(_POWER_QUANTILES * spread / np.sqrt(num)),
      wins=int(np.sum((values > 0) & ~ties)),
      ties=int(np.sum(ties)),
      losses=int(np.sum((values < 0) & ~ties)),
  )


def _sign_flip_p_value(values: np.ndarray, seed: int, num_permutations: int) -> float:
  if len(values) == 1:
    return 1.0  # One sign has two flips, both as extreme; scipy wants two values.
  result = scipy.stats.permutation_test(
      (values,), np.mean, permutation_type='samples', vectorized=True, n_resamples=num_permutations,
      batch=max(1, _MAX_FLIPS // len(values)), alternative='two-sided', rng=np.random.default_rng(seed),
  )
  return float(result.pvalue)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
  """Adjust the p values of a family of tests, so that one false finding in it is held to 5 %.

  Source: Holm, A simple sequentially rejective multiple test procedure, 1979. None, a test
  that could not be made, stays None and does not count.
  """
  tested = sorted((value, name) for name, value in p_values.items() if value is not None)
  adjusted: dict[str, float | None] = dict.fromkeys(p_values)
  highest = 0.0
  for rank, (value, name) in enumerate(tested):
    highest = max(highest, min(1.0, (len(tested) - rank) * value))
    adjusted[name] = highest
  return adjusted
