"""Expand situation cards into scenario records, deterministically.

The set is made of two kinds of source, both written by hand: cards (see
`eijax.scenarios.cards`) and whole records. `set.yaml` says how many scenarios each
scene and split has; what the cards give beyond that is left out, last angles first.
"""

import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from eijax import jsonl
from eijax.errors import DataError
from eijax.scenarios.cards import Angle, Card, Fact, Temper, Variant, load_cards
from eijax.scenarios.record import SCENES, SPLITS, Cue

DATA_SOURCE = 'eijax-cards'
# Of a variant's facts the user brings up this many by himself; the rest he answers to.
NUM_TOLD_FACTS = 7
_PLACEHOLDER = re.compile(r'\{(user|user_full|other|place)\}')


def expand(card: Card) -> list[dict[str, Any]]:
  """Return the card's scenario records, all first angles of its variants first."""
  records = []
  for depth in range(max(len(variant.angles) for variant in card.variants)):
    for number, variant in enumerate(card.variants):
      if depth < len(variant.angles):
        temper = card.tempers[depth % len(card.tempers)]
        records.append(_record(card, variant, number, variant.angles[depth], depth, temper))
  return records


def _record(
  card: Card, variant: Variant, number: int, angle: Angle, depth: int, temper: Temper
) -> dict[str, Any]:
  def fill(text: str) -> str:
    return _PLACEHOLDER.sub(lambda match: angle.cast[match.group(1)], text)

  def cue(value: Cue) -> dict[str, Any]:
    return {'text': fill(value.text), 'cues': [fill(wording).lower() for wording in value.cues]}

  facts = (*variant.facts, angle.tried, angle.stake)
  anchors = angle.anchors
  profile = {'system_prompt': fill(_user_sheet(variant, number, angle, depth, temper))}
  if angle.opening is not None:
    profile['opening_line'] = fill(angle.opening)
  return {
    'id': f'{card.scene}-{card.name}-{variant.key}-{depth + 1}',
    'title': fill(angle.title),
    'scene_tag': card.scene,
    'data_source': DATA_SOURCE,
    'theme': card.theme,
    'situation': fill(card.situation),
    'card': card.name,
    'variant': variant.key,
    'relationship': fill(variant.relationship),
    'setting': fill(variant.setting),
    'temper': temper.name,
    'content_flags': list(card.flags),
    'aggressor_profile': profile,
    'defender_profile': {'system_prompt': fill(_partner_sheet(variant))},
    'goal_one_liner': fill(variant.one_liner),
    'success_criteria': [fill(line) for line in (*variant.criteria, *card.success)],
    'must_avoid': [fill(line) for line in (*variant.avoid, *card.must_avoid)],
    'initial_calibration': {
      'initial_anger': anchors.initial_anger,
      'initial_trust': anchors.initial_trust,
    },
    'rub_goals': {'target_anger': anchors.target_anger, 'target_trust': anchors.target_trust},
    'worst_case': {
      'worst_anger_min': anchors.worst_anger,
      'worst_trust_min': anchors.worst_trust,
      'reason': fill(variant.reason),
    },
    'appraisal': {
      'facts': [cue(fact.cue) for fact in facts],
      'needs': [cue(need) for need in (*variant.needs, *card.needs)],
      'soothes': [cue(act) for act in (*variant.soothes, *card.soothes)],
      'inflames': [cue(act) for act in (*variant.inflames, *card.inflames)],
      **{name: cue(value) for name, value in variant.singles.items()},
    },
  }


def told_facts(variant: Variant, number: int, depth: int) -> tuple[Fact, ...]:
  """Return the facts that the user of this angle brings up: others at every angle."""
  size = len(variant.facts)
  kept = max(1, min(NUM_TOLD_FACTS, size))
  held_back = {(depth * (size - kept) + number + step) % size for step in range(size - kept)}
  return tuple(fact for index, fact in enumerate(variant.facts) if index not in held_back)


def _user_sheet(variant: Variant, number: int, angle: Angle, depth: int, temper: Temper) -> str:
  facts = (*told_facts(variant, number, depth), angle.tried, angle.stake)
  return '\n\n'.join(
    (
      f'### Background\n{variant.background}',
      f'### Role and stance\n{angle.stance}',
      f'### Speaking style and personality\n{temper.style}',
      '### Known facts\n' + '\n'.join(f'- {fact.sentence}' for fact in facts),
      f'### Behaviour logic and preferences\n{temper.logic}',
      f'### Purpose\n{temper.purpose}',
    )
  )


def _partner_sheet(variant: Variant) -> str:
  sheet = variant.sheet
  return '\n\n'.join(
    (
      f'### Background\n{sheet.background}',
      f'### Role and stance\n{sheet.stance}',
      '### Known facts\n' + '\n'.join(f'- {fact}' for fact in sheet.facts),
      f'### Core goal\n{sheet.goal}',
    )
  )


def _counts(folder: pathlib.Path) -> Mapping[str, Mapping[str, int]]:
  path = folder / 'set.yaml'
  try:
    counts = yaml.safe_load(path.read_text(encoding='utf-8'))['counts']
    return {split: {scene: int(counts[split][scene]) for scene in SCENES} for split in SPLITS}
  except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
    raise DataError(
      f'{path}: must hold `counts`, a number for each split and scene ({error!r})'
    ) from None


def _choose(by_card: list[list[dict[str, Any]]], size: int, where: str) -> list[dict[str, Any]]:
  """Take `size` records, as evenly over the cards as their lengths allow."""
  available = sum(map(len, by_card))
  if available < size:
    raise DataError(f'{where}: the cards give {available} scenarios, {size} are asked for')
  take = [len(records) for records in by_card]
  for _ in range(available - size):
    # The longest gives one away; of several, the last.
    longest = max(range(len(take)), key=lambda index: (take[index], index))
    take[longest] -= 1
  return [record for records, count in zip(by_card, take) for record in records[:count]]


def build(folder: pathlib.Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
  """Return the records of every (split, scene): whole records, then those of the cards.

  Raises:
    DataError: a card or a whole record is broken, or there are too few.
  """
  counts = _counts(folder)
  cards = load_cards(folder)
  built = {}
  for split in SPLITS:
    for scene in SCENES:
      path = folder / 'whole' / split / f'{scene}.jsonl'
      whole = [record for _, record in jsonl.read(path)] if path.exists() else []
      by_card = [expand(card) for card in cards if (card.split, card.scene) == (split, scene)]
      chosen = _choose(by_card, counts[split][scene] - len(whole), f'{split}/{scene}')
      built[split, scene] = whole + chosen
  return built


def write(records: Mapping[tuple[str, str], Iterable[Mapping]], folder: pathlib.Path) -> None:
  """Write `folder/SPLIT/SCENE_final.jsonl` for every key, byte for byte the same each time."""
  for (split, scene), rows in records.items():
    path = folder / split / f'{scene}_final.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w', encoding='utf-8', newline='\n') as file:
      for row in rows:
        file.write(json.dumps(row, ensure_ascii=False) + '\n')
