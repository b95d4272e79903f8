"""Exercises in speaking from the sheet: talks over sheets that exist nowhere else.

Facts are rewritten word by word with other words of the training texts, so that the
only way to say one is to copy it from the context. That teaches a small policy to use
facts that it has never met, which the held-out situations are full of. Exercises are
short talks over rewritten facts; `rewritten` gives a whole talk other words.
"""

import dataclasses
import functools
import random
import re
from collections.abc import Sequence

from eijax.episodes.state import Episode, EmotionState, Reply, Turn
from eijax.scenarios.record import Scenario
from eijax.scripted import lines
from eijax.scripted.defenders import get
from eijax.scripted.sheet_facts import bullets
from eijax.seeds import derive_seed

NUM_FACTS = 4
NUM_TURNS = 4
REPLACED_SHARE = 0.6
MAX_USER_WORDS = 7
STYLES = ('decent', 'skilled_sheet')
_WORD = re.compile(r'\b[A-Za-z]{4,}\b')


def vocabulary_of(scenarios: Sequence[Scenario]) -> list[str]:
  """Words of four letters and more from the training sheets, in a fixed order."""
  words = set()
  for scenario in scenarios:
    words |= set(re.findall(r'\b[A-Za-z]{4,}\b', scenario.defender_prompt + ' ' + scenario.aggressor_prompt))
  return sorted(words)


def _rewritten(fact: str, vocabulary: Sequence[str], rng: random.Random) -> str:
  def other(match: re.Match) -> str:
    if rng.random() > REPLACED_SHARE:
      return match.group()
    if match.group().isdigit():
      return str(rng.randrange(2, 60))
    word = rng.choice(vocabulary)
    # A fact is said as it is written: one that began in lower case would have to change.
    return word[:1].upper() + word[1:] if match.group()[:1].isupper() else word

  return re.sub(r'\b(?:[A-Za-z]{4,}|\d+)\b', other, fact)


def exercise(scenarios: Sequence[Scenario], user_lines: Sequence[str], vocabulary: Sequence[str], seed: int) -> Episode:
  """One exercise: rewritten facts of several sheets, short user lines, replies that use a fact each."""
  rng = random.Random(seed)
  model = rng.choice(scenarios)
  facts = [_rewritten(rng.choice(bullets(rng.choice(scenarios).defender_prompt)), vocabulary, rng) for _ in range(NUM_FACTS)]
  sheet = '### Known facts\n' + '\n'.join(f'- {fact}.' for fact in facts)
  scenario = dataclasses.replace(model, defender_prompt=sheet, opening_line=rng.choice(user_lines))
  levels = EmotionState(anger=scenario.anchors.initial_anger, trust=scenario.anchors.initial_trust)
  talk = Episode(scenario=scenario, max_rounds=NUM_TURNS, seed=seed, state=levels)
  for _ in range(NUM_TURNS):
    said = get(rng.choice(STYLES)).reply(talk, rng)
    turn = Turn(reply=Reply(raw=said, visible=said, thought='', has_thought=False, malformed=False),
                simulator=rng.choice(user_lines), reflection='', anger=levels.anger, trust=levels.trust,
                anger_delta=0, trust_delta=0)
    talk = dataclasses.replace(talk, turns=(*talk.turns, turn))
  return talk


def rewritten(talk: Episode, vocabulary: Sequence[str], seed: int) -> Episode:
  """The same talk about other things: words of its sheet's facts are exchanged, alike on both sides.

  Words that the scripted lines are made of stay, or the lines would come apart.
  """
  rng = random.Random(seed)
  mapping: dict[str, str] = {}

  def other(match: re.Match) -> str:
    word = match.group()
    plain = word.lower()
    if plain in _spoken_words():
      return word
    if plain not in mapping:
      mapping[plain] = word if rng.random() > REPLACED_SHARE else rng.choice(vocabulary)
    new = mapping[plain]
    return new[:1].upper() + new[1:] if word[:1].isupper() else new

  def change(text: str) -> str:
    return _WORD.sub(other, text)

  scenario = talk.scenario
  opening = scenario.opening_line
  scenario = dataclasses.replace(
      scenario, defender_prompt=_rewritten_sheet(scenario.defender_prompt, change),
      opening_line=None if opening is None else change(opening))
  turns = tuple(
      dataclasses.replace(turn, simulator=change(turn.simulator), reply=dataclasses.replace(
          turn.reply, raw=change(turn.reply.raw), visible=change(turn.reply.visible)))
      for turn in talk.turns)
  return dataclasses.replace(talk, scenario=scenario, turns=turns)


def _rewritten_sheet(sheet: str, change) -> str:
  """Headings stay: they are the same in every sheet."""
  return '\n'.join(line if line.startswith('###') else change(line) for line in sheet.split('\n'))


@functools.lru_cache(maxsize=1)
def _spoken_words() -> frozenset[str]:
  """Words of the scripted lines, in lower case."""
  texts = []
  for value in vars(lines).values():
    pools = value.values() if isinstance(value, dict) else (value,)
    texts += [text for pool in pools if isinstance(pool, tuple) for text in pool if isinstance(text, str)]
  return frozenset(word.lower() for text in texts for word in _WORD.findall(text))


def exercises(scenarios: Sequence[Scenario], talks: Sequence[Episode], *, num: int, seed: int) -> list[Episode]:
  """`num` exercises; a pure function of the arguments. `talks` lend the user's short lines."""
  vocabulary = vocabulary_of(scenarios)
  user_lines = sorted({sentence for talk in talks for turn in talk.turns
                       for sentence in re.findall(r'[^.!?]+[.!?]', turn.simulator)[:1]
                       if len(sentence.split()) <= MAX_USER_WORDS})
  return [exercise(scenarios, user_lines, vocabulary, derive_seed('exercise', seed, i)) for i in range(num)]
