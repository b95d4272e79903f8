"""Near-copies: of held-out items, of a set that exists, and of the run itself."""

import collections
import dataclasses
import pathlib
import threading
from collections.abc import Mapping
from typing import Any

from eijax.curation.similarity import shingles
from eijax.errors import UsageError
from eijax.generation.pools import Combination, comparison_keys, record_combination
from eijax.scenarios.load import load_file
from eijax.scenarios.record import SCENES, SPLITS, Scenario

# 5-gram Jaccard indices of two user sheets; a set of ours keeps to both limits.
MAX_WITHIN = 0.5
MAX_ACROSS = 0.2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Existing:
  """A set that is there already: `held_out` is its test split, `known` its train split."""

  known: tuple[Scenario, ...] = ()
  held_out: tuple[Scenario, ...] = ()


def load_existing(folder: str) -> Existing:
  """Load what there is of a set: any of its splits and scenes.

  Raises:
    UsageError: there is no such folder, or no scenario in it.
    DataError: a record breaks a rule.
  """
  root = pathlib.Path(folder)
  found: dict[str, tuple[Scenario, ...]] = {}
  for split in SPLITS:
    paths = [root / split / f'{scene}_final.jsonl' for scene in SCENES]
    found[split] = tuple(
      scenario
      for path in paths
      if path.exists() and path.stat().st_size
      for scenario in load_file(path)
    )
  if not any(found.values()):
    raise UsageError(
      f'--against={folder}: holds no {{train,test}}/SCENE_final.jsonl; name the set whose held-out items must not '
      'come back, or give --against= for none'
    )
  return Existing(known=found['train'], held_out=found['test'])


def _plain(text: str) -> str:
  return ''.join(char for char in text.casefold() if char.isalnum())


class Index:
  """All texts that a new item must not resemble. Exact, by an inverted index of 5-grams. Thread-safe."""

  def __init__(self, existing: Existing):
    self.lock = threading.RLock()
    self._names: list[str] = []
    self._sizes: list[int] = []
    self._limits: list[float] = []
    self._postings: dict[int, list[int]] = collections.defaultdict(list)
    self._titles: set[str] = set()
    self._openings: dict[str, str] = {}
    self._ids: set[str] = set()
    self._combinations: dict[tuple[str, ...], str] = {}
    for scenarios, limit in ((existing.held_out, MAX_ACROSS), (existing.known, MAX_WITHIN)):
      for scenario in scenarios:
        combination = record_combination({**scenario.extra, 'scene_tag': scenario.scene})
        self._add(
          scenario.id, scenario.title, scenario.opening_line, scenario.aggressor_prompt, limit
        )
        if combination is not None:
          self._combinations[combination] = scenario.id

  def _add(self, name: str, title: str, opening: str | None, sheet: str, limit: float) -> None:
    number = len(self._names)
    grams = {hash(gram) for gram in shingles(sheet)}
    self._names.append(name)
    self._sizes.append(len(grams))
    self._limits.append(limit)
    for gram in grams:
      self._postings[gram].append(number)
    self._ids.add(name)
    self._titles.add(_plain(title))
    if opening:
      self._openings[_plain(opening)] = name

  def add(self, record: Mapping[str, Any]) -> None:
    profile = record['aggressor_profile']
    with self.lock:
      self._add(
        record['id'], record['title'], profile.get('opening_line'), profile['system_prompt'], MAX_WITHIN
      )

  def holds(self, combination: Combination) -> str | None:
    """The id of the existing item that was made of this combination."""
    with self.lock:
      return next(
        (self._combinations[key] for key in comparison_keys(combination) if key in self._combinations),
        None,
      )

  def nearest(self, sheet: str) -> tuple[str, float, float] | None:
    """The item that is closest to its limit: (id, Jaccard index, limit); None if all are below theirs."""
    grams = {hash(gram) for gram in shingles(sheet)}
    with self.lock:
      shared: collections.Counter[int] = collections.Counter()
      for gram in grams:
        shared.update(self._postings.get(gram, ()))
      worst = None
      for number, count in shared.items():
        value = count / (len(grams) + self._sizes[number] - count)
        limit = self._limits[number]
        if value >= limit and (worst is None or value - limit > worst[1] - worst[2]):
          worst = (self._names[number], value, limit)
    return worst

  def why_not(self, record: Mapping[str, Any]) -> str | None:
    """Why a record would be a copy of something; None if it is new."""
    profile = record['aggressor_profile']
    with self.lock:
      if record['id'] in self._ids:
        return f'duplicate: the id {record["id"]!r} is taken'
      opening = profile.get('opening_line')
      if opening and _plain(opening) in self._openings:
        return f'duplicate: the opening line of {self._openings[_plain(opening)]!r}'
      near = self.nearest(profile['system_prompt'])
      if near is not None:
        name, value, limit = near
        return f"duplicate: the user's sheet is like that of {name!r} (5-gram Jaccard {value:.2f}, must stay below {limit})"
    return None

  def free_title(self, title: str) -> str:
    """The title, with a number behind it if it is taken."""
    with self.lock:
      free, number = title, 2
      while _plain(free) in self._titles:
        free, number = f'{title} ({number})', number + 1
    return free
