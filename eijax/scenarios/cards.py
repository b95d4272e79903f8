"""Situation cards: what people write by hand, and the source of the scenario set.

A card holds one human situation: three tempers that any of its users may have, and
variants that change who, where, what happened and what is at stake. Each variant is
met from several angles: a cast, a mood, what was tried before, an opening line.
`eijax.scenarios.build` turns (variant, angle) into one scenario record.

One YAML file a card, `cards/SPLIT/SCENE/SLUG.yaml`. Lists of cues are lines of text,
`phrase | cue / cue / cue`; facts have the user's sentence in front of that. Names are
written {user}, {user_full}, {other} and {place}; each angle's cast fills them in.
"""

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import yaml

from eijax.errors import DataError
from eijax.scenarios.record import SCENES, SPLITS, Anchors, Cue

CONTENT_FLAGS = (
  'self-harm',
  'abuse',
  'minors',
  'illness',
  'death',
  'addiction',
  'violence',
  'discrimination',
)
SINGLES = {
  'support': (),
  'defense': ('boundary', 'holds', 'yields', 'way_out'),
  'repair': ('act', 'effect', 'amends'),
  'charm': (),
}
PLACEHOLDERS = ('user', 'user_full', 'other', 'place')
_ANCHORS = re.compile(r'^\s*(\d+)\s+(\d+)\s*->\s*(\d+)\s+(\d+)\s*\|\s*(\d+)\s+(\d+)\s*$')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
  """Something that happened. sentence: as the user's sheet has it, second person."""

  sentence: str
  cue: Cue


@dataclasses.dataclass(frozen=True, kw_only=True)
class Temper:
  """A way of being the user of this card: three paragraphs of the user's sheet."""

  name: str
  style: str
  logic: str
  purpose: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class PartnerSheet:
  """What the other person, the model under test, knows and is asked to do."""

  background: str
  stance: str
  facts: tuple[str, ...]
  goal: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Angle:
  """One meeting: who (given names and place), in what mood, after what, with which first line."""

  cast: Mapping[str, str]
  title: str
  stance: str
  tried: Fact
  stake: Fact
  opening: str | None
  anchors: Anchors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
  """One shape of the situation: its own people, history, facts and partner."""

  key: str
  relationship: str
  setting: str
  background: str
  facts: tuple[Fact, ...]
  needs: tuple[Cue, ...]
  soothes: tuple[Cue, ...]
  inflames: tuple[Cue, ...]
  singles: Mapping[str, Cue]
  sheet: PartnerSheet
  criteria: tuple[str, ...]
  avoid: tuple[str, ...]
  one_liner: str
  reason: str
  angles: tuple[Angle, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """One situation. Texts still hold their placeholders."""

  name: str
  split: str
  scene: str
  theme: str
  situation: str
  flags: tuple[str, ...]
  tempers: tuple[Temper, ...]
  needs: tuple[Cue, ...]
  soothes: tuple[Cue, ...]
  inflames: tuple[Cue, ...]
  success: tuple[str, ...]
  must_avoid: tuple[str, ...]
  variants: tuple[Variant, ...]


def _fail(where: str, field: str, value: Any, rule: str) -> NoReturn:
  shown = repr(value)
  raise DataError(
    f'{where}: `{field}` = {shown[:77] + "..." if len(shown) > 80 else shown} breaks the rule: {rule}'
  )


class _Reader:
  """Typed look-ups in one mapping, with errors that name file and field."""

  def __init__(self, obj: Any, where: str, field: str = ''):
    if not isinstance(obj, Mapping):
      _fail(where, field or '(the file)', obj, 'must be a mapping')
    self._obj, self._where, self._field = obj, where, field

  def path(self, name: str) -> str:
    return f'{self._field}.{name}' if self._field else name

  def fail(self, name: str, rule: str) -> NoReturn:
    _fail(self._where, self.path(name), self._obj.get(name), rule)

  def only(self, *names: str) -> None:
    for name in self._obj:
      if name not in names:
        self.fail(name, f'no such key; use {", ".join(names)}')

  def has(self, name: str) -> bool:
    return name in self._obj

  def text(self, name: str) -> str:
    value = self._obj.get(name)
    if not isinstance(value, str) or not value.strip():
      self.fail(name, 'must be a non-empty text')
    return ' '.join(value.split())

  def lines(self, name: str) -> tuple[str, ...]:
    value = self._obj.get(name)
    found = [
      ' '.join(line.split())
      for line in (value.splitlines() if isinstance(value, str) else ())
      if line.strip()
    ]
    if not found:
      self.fail(name, 'must be lines of text')
    return tuple(found)

  def cue(self, name: str, line: str) -> Cue:
    parts = [part.strip() for part in line.split('|')]
    cues = tuple(cue.strip() for cue in parts[-1].split('/') if cue.strip())
    if len(parts) != 2 or not parts[0] or not cues:
      _fail(self._where, self.path(name), line, 'must read: phrase | cue / cue / cue')
    return Cue(text=parts[0], cues=cues)

  def cues(self, name: str) -> tuple[Cue, ...]:
    return tuple(self.cue(name, line) for line in self.lines(name))

  def facts(self, name: str) -> tuple[Fact, ...]:
    found = []
    for line in self.lines(name):
      sentence, bar, rest = line.partition('|')
      if not bar or not sentence.strip():
        _fail(self._where, self.path(name), line, 'must read: sentence | phrase | cue / cue')
      found.append(Fact(sentence=sentence.strip(), cue=self.cue(name, rest)))
    return tuple(found)

  def one(self, name: str, found: tuple) -> Any:
    if len(found) != 1:
      self.fail(name, 'must be a single line')
    return found[0]

  def children(self, name: str) -> list['_Reader']:
    value = self._obj.get(name)
    if not isinstance(value, list) or not value:
      self.fail(name, 'must be a non-empty list')
    return [
      _Reader(item, self._where, f'{self.path(name)}[{index}]') for index, item in enumerate(value)
    ]

  def child(self, name: str) -> '_Reader':
    return _Reader(self._obj.get(name), self._where, self.path(name))

  def strings(self, name: str) -> dict[str, str]:
    value = self._obj.get(name)
    if not isinstance(value, Mapping) or not all(
      isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    ):
      self.fail(name, 'must map names to texts')
    return dict(value)

  def anchors(self, name: str) -> Anchors:
    match = _ANCHORS.match(str(self._obj.get(name)))
    if not match:
      self.fail(name, 'must read: ANGER TRUST -> TARGET_ANGER TARGET_TRUST | WORST_ANGER WORST_TRUST')
    start_anger, start_trust, anger, trust, worst_anger, worst_trust = map(int, match.groups())
    levels = (start_anger, start_trust, anger, trust, worst_anger, worst_trust)
    if any(level % 5 or level > 100 for level in levels):
      self.fail(name, 'must be multiples of 5 in 0..100')
    if not (anger < start_anger < worst_anger and worst_trust < start_trust < trust):
      self.fail(
        name, 'must have target anger < start < worst anger and worst trust < start < target trust'
      )
    return Anchors(
      initial_anger=start_anger,
      initial_trust=start_trust,
      target_anger=anger,
      target_trust=trust,
      worst_anger=worst_anger,
      worst_trust=worst_trust,
    )


def load_card(path: pathlib.Path, split: str, scene: str) -> Card:
  """Read one card.

  Raises:
    DataError: names file, field, value and rule.
  """
  where = str(path)
  try:
    with open(path, encoding='utf-8') as file:
      raw = yaml.safe_load(file)
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    raise DataError(f'{where}: is not YAML: {" ".join(str(error).split())}') from None
  reader = _Reader(raw, where)
  reader.only(
    'card', 'scene', 'theme', 'situation', 'flags', 'tempers', 'needs', 'soothes', 'inflames',
    'success', 'must_avoid', 'anchors', 'variants',
  )  # fmt: skip
  if reader.text('card') != path.stem:
    reader.fail('card', f'must be the name of the file, {path.stem!r}')
  if reader.text('scene') != scene:
    reader.fail('scene', f'must be {scene!r} in this folder')
  flags = raw.get('flags') or []
  if not isinstance(flags, list) or any(flag not in CONTENT_FLAGS for flag in flags):
    reader.fail('flags', f'must be a list of {", ".join(CONTENT_FLAGS)}')
  default = reader.anchors('anchors')
  return Card(
    name=path.stem,
    split=split,
    scene=scene,
    theme=reader.text('theme'),
    situation=reader.text('situation'),
    flags=tuple(flags),
    tempers=tuple(_temper(child) for child in reader.children('tempers')),
    needs=reader.cues('needs'),
    soothes=reader.cues('soothes'),
    inflames=reader.cues('inflames'),
    success=reader.lines('success'),
    must_avoid=reader.lines('must_avoid'),
    variants=tuple(_variant(child, scene, default) for child in reader.children('variants')),
  )


def _temper(reader: _Reader) -> Temper:
  names = ('name', 'style', 'logic', 'purpose')
  reader.only(*names)
  return Temper(**{name: reader.text(name) for name in names})


def _variant(reader: _Reader, scene: str, default: Anchors) -> Variant:
  reader.only(
    'key', 'relationship', 'setting', 'background', 'facts', 'needs', 'soothes', 'inflames', 'sheet',
    'criterion', 'avoid', 'one_liner', 'reason', 'angles', *SINGLES[scene],
  )  # fmt: skip
  sheet = reader.child('sheet')
  sheet.only('background', 'stance', 'facts', 'goal')
  return Variant(
    key=reader.text('key'),
    relationship=reader.text('relationship'),
    setting=reader.text('setting'),
    background=reader.text('background'),
    facts=reader.facts('facts'),
    needs=reader.cues('needs'),
    soothes=reader.cues('soothes'),
    inflames=reader.cues('inflames'),
    singles={name: reader.one(name, reader.cues(name)) for name in SINGLES[scene]},
    sheet=PartnerSheet(
      background=sheet.text('background'),
      stance=sheet.text('stance'),
      facts=tuple(line.rstrip('.') for line in sheet.lines('facts')),
      goal=sheet.text('goal'),
    ),
    criteria=reader.lines('criterion'),
    avoid=reader.lines('avoid'),
    one_liner=reader.text('one_liner'),
    reason=reader.text('reason'),
    angles=tuple(_angle(child, scene, default) for child in reader.children('angles')),
  )


def _angle(reader: _Reader, scene: str, default: Anchors) -> Angle:
  reader.only('cast', 'title', 'stance', 'tried', 'stake', 'opening', 'anchors')
  cast = reader.strings('cast')
  if set(cast) != {'user', 'other', 'place'}:
    reader.fail('cast', 'must name user, other and place')
  if scene == 'charm' and reader.has('opening'):
    reader.fail('opening', 'a charm scenario has no opening line (the partner opens)')
  return Angle(
    cast={**cast, 'user_full': cast['user'], 'user': cast['user'].split()[0]},
    title=reader.text('title'),
    stance=reader.text('stance'),
    tried=reader.one('tried', reader.facts('tried')),
    stake=reader.one('stake', reader.facts('stake')),
    opening=None if scene == 'charm' else reader.text('opening'),
    anchors=reader.anchors('anchors') if reader.has('anchors') else default,
  )


def load_cards(folder: pathlib.Path) -> tuple[Card, ...]:
  """Read every card below `folder/SPLIT/SCENE`, sorted by split, scene and name.

  Raises:
    DataError: a card breaks a rule, or two have one name.
  """
  cards, seen = [], {}
  for split in SPLITS:
    for scene in SCENES:
      for path in sorted((folder / split / scene).glob('*.yaml')):
        if path.stem in seen:
          raise DataError(f'{path}: `card` is not unique: {seen[path.stem]} has the same name')
        seen[path.stem] = path
        cards.append(load_card(path, split, scene))
  return tuple(cards)
