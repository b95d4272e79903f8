"""How alike two texts are: Jaccard index of their 5-grams, exact and fast for thousands of texts.

J(a, b) = |A n B| / |A u B| over the sets A, B of 5-grams. An English word is one token, and so is a
Chinese character, so the same code compares word 5-grams and character 5-grams.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse

NUM_TOKENS = 5
# 2,222 texts by one block of rows: 4.5 million counts at most, 36 MB.
_BLOCK_ROWS = 256
_CJK = '\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff'
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:'[^\W_{_CJK}]+)*")

Pair = tuple[int, int, float]


def tokens(text: str) -> list[str]:
  """Lower-case words, and single Chinese characters, in order; punctuation is left out."""
  return _TOKEN.findall(text.casefold().replace('’', "'"))


def shingles(text: str) -> frozenset[str]:
  """The 5-grams of a text. A text of fewer tokens is one shingle; an empty one has none."""
  found = tokens(text)
  if not found:
    return frozenset()
  last = max(1, len(found) - NUM_TOKENS + 1)
  return frozenset(' '.join(found[start : start + NUM_TOKENS]) for start in range(last))


def jaccard(a: frozenset, b: frozenset) -> float:
  """|a n b| / |a u b|, in 0..1; 0 if either is empty."""
  shared = len(a & b)
  return shared / (len(a) + len(b) - shared) if shared else 0.0


def closest_pairs(texts_a: Sequence[str], texts_b: Sequence[str] | None = None, threshold: float = 0.5) -> list[Pair]:
  """Find every pair of texts with a Jaccard index of at least `threshold`. Exact.

  Args:
    texts_a: texts.
    texts_b: texts to compare them with; without it, texts_a among themselves.
    threshold: above 0, at most 1.
  Returns:
    (i, j, jaccard) with i into texts_a and j into texts_b, the closest pair first, then by i and j.
    Without texts_b, j is into texts_a and i < j.
  Raises:
    ValueError: if threshold is out of range.
  """
  if not 0 < threshold <= 1:
    raise ValueError(f'threshold={threshold} must be above 0 and at most 1; use 0.5, say')
  found = []
  for rows, columns, values in _overlaps(texts_a, texts_b):
    kept = values >= threshold
    found += zip(rows[kept].tolist(), columns[kept].tolist(), values[kept].tolist())
  return sorted(found, key=lambda pair: (-pair[2], pair[0], pair[1]))


def closest_pair(texts_a: Sequence[str], texts_b: Sequence[str] | None = None) -> Pair | None:
  """The pair with the highest Jaccard index, the first of several; None if none share a 5-gram."""
  best = None
  for rows, columns, values in _overlaps(texts_a, texts_b):
    if values.size:
      top = np.flatnonzero(values == values.max())
      first = top[np.lexsort((columns[top], rows[top]))[0]]
      if best is None or values[first] > best[2]:
        best = int(rows[first]), int(columns[first]), float(values[first])
  return best


def nearest(texts_a: Sequence[str], texts_b: Sequence[str] | None = None) -> np.ndarray:
  """float64[len(texts_a)]: the Jaccard index of each text with the one that is most like it."""
  best = np.zeros(len(texts_a))
  for rows, columns, values in _overlaps(texts_a, texts_b):
    np.maximum.at(best, rows, values)
    if texts_b is None:
      np.maximum.at(best, columns, values)
  return best


def _overlaps(
  texts_a: Sequence[str], texts_b: Sequence[str] | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Yield (rows int[P], columns int[P], jaccard float64[P]) of all pairs that share a 5-gram."""
  vocabulary: dict[str, int] = {}
  sets_a = [shingles(text) for text in texts_a]
  sets_b = sets_a if texts_b is None else [shingles(text) for text in texts_b]
  if not sets_a or not sets_b:
    return
  indices = [[vocabulary.setdefault(shingle, len(vocabulary)) for shingle in one] for one in sets_a]
  indices_b = (
    indices
    if texts_b is None
    else [[vocabulary.setdefault(shingle, len(vocabulary)) for shingle in one] for one in sets_b]
  )
  left = _matrix(indices, len(vocabulary))
  right = _matrix(indices_b, len(vocabulary)).T.tocsr()
  sizes_a = np.array([len(one) for one in sets_a])
  sizes_b = np.array([len(one) for one in sets_b])
  for start in range(0, len(sets_a), _BLOCK_ROWS):
    shared = (left[start : start + _BLOCK_ROWS] @ right).tocoo()
    rows, columns, counts = shared.row + start, shared.col, shared.data
    if texts_b is None:
      upper = rows < columns
      rows, columns, counts = rows[upper], columns[upper], counts[upper]
    # Integers divided once, as in `jaccard`: both give the same float.
    yield rows, columns, counts / (sizes_a[rows] + sizes_b[columns] - counts)


def _matrix(indices: Sequence[Sequence[int]], width: int) -> sparse.csr_array:
  """int32[N, V], 1 where text n has shingle v."""
  ends = np.cumsum([0] + [len(one) for one in indices])
  flat = np.fromiter((index for one in indices for index in one), dtype=np.int32, count=ends[-1])
  return sparse.csr_array((np.ones(ends[-1], np.int32), flat, ends), shape=(len(indices), width))
