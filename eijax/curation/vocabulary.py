"""How rich the words of a set are, in figures that do not depend on its size."""

import collections
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from eijax.curation import similarity
from eijax.seeds import derive_seed
from eijax.simulator.embedded import words

WINDOW = 500
SAMPLE = 20_000


def moving_average_ttr(tokens: Sequence[str], window: int = WINDOW) -> float | None:
  """Mean share of different words over all windows; None for fewer words than a window.

  Source: Covington and McFall, Cutting the Gordian knot: the moving-average type-token ratio,
  https://doi.org/10.1080/09296171003643098.
  """
  if len(tokens) < window:
    return None
  counts = collections.Counter(tokens[:window])
  total = len(counts)
  for leaving, entering in zip(tokens, tokens[window:]):
    counts[entering] += 1
    counts[leaving] -= 1
    if not counts[leaving]:
      del counts[leaving]
    total += len(counts)
  return total / (len(tokens) - window + 1) / window


def richness(texts: Sequence[str], seed: int = 0) -> dict[str, Any]:
  """Count words and measure how varied they are.

  Returns:
    tokens, types, stems: numbers of words, of different ones, and of different stems of them;
    once: types that stand once; types_in_sample: different words among the first SAMPLE ones of the
    texts in a seeded order (None for less text); mattr: see `moving_average_ttr`.
  """
  by_text = [similarity.tokens(text) for text in texts]
  counts = collections.Counter(token for tokens in by_text for token in tokens)
  order = list(by_text)
  random.Random(derive_seed('vocabulary', seed)).shuffle(order)
  mixed = [token for tokens in order for token in tokens]
  return {
    'tokens': len(mixed),
    'types': len(counts),
    'stems': len({words.stem(token) for token in counts}),
    'once': sum(number == 1 for number in counts.values()),
    'types_in_sample': len(set(mixed[:SAMPLE])) if len(mixed) >= SAMPLE else None,
    'mattr': moving_average_ttr(mixed),
  }


def spread(values: Sequence[float]) -> dict[str, float] | None:
  """Number, mean, smallest, 5 %, median, 95 % and largest of some values; None of none."""
  if not len(values):
    return None
  low, median, high = np.percentile(values, (5, 50, 95))
  return {
    'n': len(values), 'mean': float(np.mean(values)), 'min': float(np.min(values)), 'p5': float(low),
    'median': float(median), 'p95': float(high), 'max': float(np.max(values)),
  }  # fmt: skip
