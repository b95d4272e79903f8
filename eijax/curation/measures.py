"""What a set holds, as plain data: counts, lengths, vocabulary, near-copies, tables, anchors."""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eijax.curation import sections, similarity, vocabulary
from eijax.curation.records import Entry
from eijax.scenarios.record import SCENES, SPLITS

ALL = 'all'
# Name -> what is counted of one record; None where the record has no such part.
LENGTHS: Mapping[str, Callable[[Any], int | None]] = {
  "user's sheet, words": lambda scenario: len(similarity.tokens(scenario.aggressor_prompt)),
  "user's sheet, facts": lambda scenario: len(sections.facts(scenario.aggressor_prompt)),
  "partner's sheet, words": lambda scenario: len(similarity.tokens(scenario.defender_prompt)),
  "partner's sheet, facts": lambda scenario: len(sections.facts(scenario.defender_prompt)),
  'opening, words': lambda scenario: scenario.opening_line and len(similarity.tokens(scenario.opening_line)),
  'success criteria': lambda scenario: len(scenario.success_criteria),
  'things to avoid': lambda scenario: len(scenario.must_avoid),
}
TABLES = ('theme', 'situation', 'relationship', 'setting', 'temper', 'intensity', 'personality', 'content_flags')
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.5)
_BINS = 50


def measure(entries: Sequence[Entry]) -> dict[str, Any]:
  """Measure a set.

  Returns:
    counts: split -> scene -> number; languages: language -> number;
    lengths: scene or 'all' -> name -> spread (see `vocabulary.spread`);
    vocabulary: split or scene or 'all' -> `vocabulary.richness` of both sheets and the opening;
    near_copies: 'within train' and so on -> highest Jaccard index, its pair, number of pairs at and above
    each of LEVELS, spread of the closest neighbour and its histogram (bins of 1 / 50);
    tables: key -> value -> scene -> number; anchors: scene -> field -> level -> number.
  """
  return {
    'counts': {
      split: {scene: len(_part(entries, split=split, scene=scene)) for scene in SCENES} for split in SPLITS
    },
    'languages': dict(collections.Counter(entry.scenario.language for entry in entries)),
    'lengths': {scene: _lengths(_part(entries, scene=scene)) for scene in (ALL, *SCENES)},
    'vocabulary': _vocabularies(entries),
    'near_copies': _near_copies(entries),
    'tables': {key: table for key in TABLES if (table := _table(entries, key))},
    'anchors': {scene: _anchors(_part(entries, scene=scene)) for scene in SCENES},
  }  # fmt: skip


def _part(entries: Sequence[Entry], *, split: str = ALL, scene: str = ALL) -> list[Entry]:
  return [entry for entry in entries if split in (ALL, entry.split) and scene in (ALL, entry.scenario.scene)]


def _lengths(entries: Sequence[Entry]) -> dict[str, dict[str, float] | None]:
  return {
    name: vocabulary.spread([value for entry in entries if (value := count(entry.scenario)) is not None])
    for name, count in LENGTHS.items()
  }


def _vocabularies(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
  parts = {ALL: list(entries)}
  parts |= {split: _part(entries, split=split) for split in SPLITS}
  parts |= {scene: _part(entries, scene=scene) for scene in SCENES}
  return {
    name: vocabulary.richness([
      text
      for entry in part
      for text in (
        entry.scenario.aggressor_prompt, entry.scenario.defender_prompt, entry.scenario.opening_line or ''
      )
    ])
    for name, part in parts.items()
    if part
  }  # fmt: skip


def _near_copies(entries: Sequence[Entry]) -> dict[str, dict[str, Any]]:
  train, test = (_part(entries, split=split) for split in SPLITS)
  found = {}
  for name, part, others in (
    ('within train', train, None), ('within test', test, None), ('train to test', train, test),
  ):
    if len(part) > 1 and (others is None or others):
      found[name] = _closeness(part, others)
  return found


def _closeness(part: Sequence[Entry], others: Sequence[Entry] | None) -> dict[str, Any]:
  texts = [entry.scenario.aggressor_prompt for entry in part]
  other_texts = None if others is None else [entry.scenario.aggressor_prompt for entry in others]
  pairs = similarity.closest_pairs(texts, other_texts, LEVELS[0])
  nearest = similarity.nearest(texts, other_texts)
  counts, _ = np.histogram(nearest, bins=_BINS, range=(0, 1))
  best = similarity.closest_pair(texts, other_texts)
  return {
    'highest': best[2] if best else 0.0,
    'pair': [part[best[0]].scenario.id, (part if others is None else others)[best[1]].scenario.id] if best else None,
    'pairs_from': {f'{level:g}': sum(value >= level for _, _, value in pairs) for level in LEVELS},
    'closest_neighbour': vocabulary.spread(nearest),
    'histogram': counts.tolist(),
  }


def _table(entries: Sequence[Entry], key: str) -> dict[str, dict[str, int]]:
  """Value -> scene -> number, the most frequent value first; empty where no record has the key."""
  found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  for entry in entries:
    value = entry.scenario.extra.get(key)
    for item in value if isinstance(value, list) else [value]:
      if isinstance(item, str):
        found[item][entry.scenario.scene] += 1
  ranked = sorted(found.items(), key=lambda item: (-item[1].total(), item[0]))
  return {value: {scene: counts[scene] for scene in SCENES} for value, counts in ranked}


def _anchors(entries: Sequence[Entry]) -> dict[str, dict[str, int]]:
  found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
  for entry in entries:
    for field, level in dataclasses.asdict(entry.scenario.anchors).items():
      found[field][level] += 1
  return {field: {str(level): counts[level] for level in sorted(counts)} for field, counts in found.items()}
