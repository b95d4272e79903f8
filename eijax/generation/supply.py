"""Which combination is worked on next, until every scene has as many items as were asked for."""

import collections
from collections.abc import Mapping

from eijax.errors import EijaxError
from eijax.generation.duplicates import Index
from eijax.generation.journal import Journal
from eijax.generation.pools import Combination, combinations

# A scene is given up after this many rejections in one run, or twice as many as are wanted.
_LEAST_REJECTIONS = 12


class GivenUp(EijaxError):
  """Too much is rejected for the run to come to an end."""


def shares(num: int, scenes: tuple[str, ...]) -> dict[str, int]:
  """Spread `num` items over the scenes, the first ones getting one more."""
  return {scene: num // len(scenes) + (index < num % len(scenes)) for index, scene in enumerate(scenes)}


class Supply:
  """Draws combinations, skips the ones that exist, replaces the ones that were rejected.

  Not safe to share: one thread draws.
  """

  def __init__(self, wanted: Mapping[str, int], seed: int, journal: Journal, index: Index):
    self._wanted = dict(wanted)
    self._journal, self._index = journal, index
    self._draws = {scene: combinations(scene, seed) for scene in wanted}
    self._accepted = collections.Counter(
      item.split('/')[0] for item, end in journal.ends.items() if end['end'] == 'accepted'
    )
    self._in_flight: collections.Counter[str] = collections.Counter()
    self._rejections: dict[str, list[str]] = {scene: [] for scene in wanted}
    self.num_skipped = 0

  @property
  def num_missing(self) -> int:
    return sum(max(0, wanted - self._accepted[scene]) for scene, wanted in self._wanted.items())

  def next(self) -> Combination | None:
    """The next combination of the scene that lacks most; None if all are served or under way."""
    lacks = {
      scene: wanted - self._accepted[scene] - self._in_flight[scene]
      for scene, wanted in self._wanted.items()
    }
    scene = max(lacks, key=lacks.get)
    if lacks[scene] <= 0:
      return None
    for combination in self._draws[scene]:
      if combination.key in self._journal.ends:
        continue
      if self._index.holds(combination) is not None:
        self.num_skipped += 1
        continue
      self._in_flight[scene] += 1
      return combination
    raise GivenUp(f'{scene}: every combination of the pools is used; lower --num')

  def done(self, combination: Combination, accepted: bool) -> None:
    scene = combination.scene
    self._in_flight[scene] -= 1
    if accepted:
      self._accepted[scene] += 1
      return
    reasons = self._rejections[scene]
    reasons.append(self._journal.ends[combination.key].get('reason', ''))
    limit = max(_LEAST_REJECTIONS, 2 * self._wanted[scene])
    if len(reasons) >= limit:
      raise GivenUp(
        f'{scene}: {len(reasons)} items were rejected in this run for {self._wanted[scene]} wanted, the last '
        f'because of: {reasons[-1]}; look at rejected.jsonl, use a stronger model, and run the same command again'
      )
