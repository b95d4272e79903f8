"""What a reply can touch: the appraisal compiled to stems, or a fallback from the persona."""

import dataclasses
import functools
import logging
import re

from eijax.scenarios.record import Appraisal, Cue
from eijax.simulator.embedded import words
from eijax.simulator.prompts import TALKS_KEPT

LISTS = ('facts', 'needs', 'soothes', 'inflames')
SINGLES = ('boundary', 'holds', 'yields', 'way_out', 'act', 'effect', 'amends')

_FACT_HEADING = re.compile(r'known facts|已知|事实', re.I)
_PURPOSE_HEADING = re.compile(r'purpose|目的|目标|诉求', re.I)
_SOFT_OVERLAP = {'en': 2, 'zh': 3}  # Content stems (or pairs) that make a fallback match.

_reported: set[str] = set()


def _least_said(cue: frozenset[str]) -> str:
  if len(cue) == 1:
    return next(iter(cue))
  return min(cue, key=lambda stem: (stem in words.COMMON_STEMS, -len(stem), stem))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Item:
  """One thing that can be touched.

  kind: a field name of Appraisal. index: position in its list. cues: sets of stems,
  one of which must stand whole in a sentence; raw_cues are the same in words (Chinese: substrings).
  soft: stems of which `soft_min` must stand in a sentence (fallback without appraisal).
  """

  kind: str
  index: int
  text: str
  cues: tuple[frozenset[str], ...]
  raw_cues: tuple[str, ...] = ()
  soft: frozenset[str] = frozenset()
  soft_min: int = 0

  # Worked out once, here: a cached_property takes a lock for each item.
  key: tuple[str, int] = dataclasses.field(init=False, repr=False)
  # Of each cue the stem that is said least: without one of these no cue stands. None where stems do not tell.
  _telling: frozenset[str] | None = dataclasses.field(init=False, repr=False)

  def __post_init__(self):
    object.__setattr__(self, 'key', (self.kind, self.index))
    tells = not self.soft and all(self.cues)
    object.__setattr__(self, '_telling', frozenset(map(_least_said, self.cues)) if tells else None)

  def match(self, stems: frozenset[str], text: str) -> frozenset[str] | None:
    """Return the stems of the first cue that stands in the sentence, or None."""
    telling = self._telling
    if telling is not None and telling.isdisjoint(stems):
      return None
    for cue, raw in zip(self.cues, self.raw_cues):
      if cue:
        if cue <= stems:
          return cue
      elif raw and all(part in text for part in raw.split()):  # Chinese cue: plain substrings.
        return frozenset(raw.split())
    if self.soft:
      common = self.soft & stems
      if len(common) >= self.soft_min:
        return common
    return None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sheet:
  """A scenario as the appraisal sees it; compared by identity, so that caches hash it fast.

  bullets: the persona's known facts, verbatim; persona_trigrams: their three-word runs.
  """

  language: str
  scene: str
  items: tuple[Item, ...]
  vocabulary: frozenset[str]
  persona_trigrams: frozenset[tuple[str, ...]]
  bullets: tuple[str, ...]
  has_appraisal: bool

  @functools.cached_property
  def num_needs(self) -> int:
    return sum(item.kind == 'needs' for item in self.items)


@functools.lru_cache(maxsize=TALKS_KEPT)
def compile_sheet(language: str, scene: str, persona: str, appraisal: Appraisal | None) -> Sheet:
  """Compile a scenario once; requests of the same talk share the result."""
  bullets = _bullets(persona, _FACT_HEADING)
  if appraisal is None:
    _report_fallback(persona)
    items = _fallback_items(language, persona, bullets)
  else:
    items = _appraisal_items(appraisal)
  vocabulary = set(words.content_stems(persona))
  for item in items:
    vocabulary |= words.content_stems(item.text)
    vocabulary.update(*(words.content_stems(raw) for raw in item.raw_cues if not raw.isascii()))
  vocabulary |= words.content(frozenset().union(*(cue for item in items for cue in item.cues)))
  return Sheet(
    language=language,
    scene=scene,
    items=items,
    vocabulary=frozenset(vocabulary),
    persona_trigrams=frozenset().union(*map(trigrams, bullets)) if bullets else trigrams(persona),
    bullets=bullets,
    has_appraisal=appraisal is not None,
  )


def trigrams(text: str) -> frozenset[tuple[str, ...]]:
  """Return the set of three-word runs (stems, function words kept)."""
  run = words.stems(text)
  return frozenset(zip(run, run[1:], run[2:]))


def _appraisal_items(appraisal: Appraisal) -> tuple[Item, ...]:
  items = []
  for kind in LISTS:
    items.extend(_item(kind, index, cue) for index, cue in enumerate(getattr(appraisal, kind)))
  for kind in SINGLES:
    cue = getattr(appraisal, kind)
    if cue is not None:
      items.append(_item(kind, 0, cue))
  return tuple(items)


def _item(kind: str, index: int, cue: Cue) -> Item:
  sets = tuple(frozenset(map(words.stem, words.find_words(text))) for text in cue.cues)
  return Item(kind=kind, index=index, text=cue.text, cues=sets, raw_cues=cue.cues)


def _bullets(persona: str, heading: re.Pattern) -> tuple[str, ...]:
  """Return the lines below the heading that matches; without one, every bullet or sentence."""
  section, found = [], False
  for line in persona.splitlines():
    if re.match(r'\s*(?:#+|【|\*\*)', line):
      found = bool(heading.search(line))
      continue
    if found and line.strip():
      section.append(re.sub(r'^\s*(?:[-*•·]|\d+[.、)])\s*', '', line).strip())
  if section:
    return tuple(
      part for line in section for part in ([line] if len(section) > 2 else words.sentences(line))
    )
  return ()


def _fallback_items(language: str, persona: str, bullets: tuple[str, ...]) -> tuple[Item, ...]:
  """Key phrases of the persona sheet: each known fact, and each sentence of the purpose."""
  lines = bullets or tuple(words.sentences(persona))
  items = []
  for kind, texts in (('facts', lines), ('needs', _bullets(persona, _PURPOSE_HEADING))):
    for index, text in enumerate(texts):
      soft = words.content_stems(text)
      if len(soft) >= _SOFT_OVERLAP[language]:
        items.append(
          Item(
            kind=kind, index=index, text=text, cues=(), soft=soft, soft_min=_SOFT_OVERLAP[language]
          )
        )
  return tuple(items)


def _report_fallback(persona: str) -> None:
  """Say once per process that a request carried no appraisal sections."""
  if 'fallback' not in _reported:
    _reported.add('fallback')
    logging.getLogger(__name__).warning(
      'a scenario without appraisal sections: reading replies by key phrases of its persona sheet instead (%.60r...)',
      persona,
    )
