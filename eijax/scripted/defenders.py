"""Scripted defenders: the calibration panel, and a source of replies of mixed quality.

Each is a way of talking, not a policy that learns. Only `skilled` reads the
scenario's appraisal; the others know the defender's sheet and the talk. Lines vary
with the generator that is passed in, and no line is said twice in a talk while
there is another.
"""

import dataclasses
import functools
import random
import re
from collections.abc import Callable, Sequence

from eijax.episodes.state import Episode
from eijax.scripted import lines, sheet_facts
from eijax.simulator.embedded import words

MAX_DETAIL_WORDS = 4
_LINKS = frozenset('my the a an of in on at for from with and'.split())


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScriptedDefender:
  """A named way of replying. reply_fn(episode, rng) returns the visible reply."""

  name: str
  about: str
  reply_fn: Callable[[Episode, random.Random], str]

  def reply(self, episode: Episode, rng: random.Random) -> str:
    """Return the next line in this talk; a pure function of the talk and the generator's state."""
    return self.reply_fn(episode, rng)


def _said(episode: Episode) -> list[str]:
  return [turn.reply.visible for turn in episode.turns]


def _fresh(options: Sequence[str], said: Sequence[str], rng: random.Random) -> str:
  """Pick an option that has not been used in this talk, as far as there is one."""
  unused = [option for option in options if not any(_frame(option) in line for line in said)]
  return rng.choice(unused or list(options))


@functools.lru_cache(maxsize=1 << 12)
def _frame(option: str) -> str:
  """The longest run of a template between its slots."""
  return max(re.split(r'\{\w+\}', option), key=len).strip()


def _fill(template: str, **slots: str) -> str:
  return template.format(**slots)


def _open_clauses(episode: Episode) -> list[str]:
  """Facts of the own sheet that have not been said yet."""
  told = ' '.join(_said(episode)).lower()
  return [
    fact for fact in sheet_facts.spoken(episode.scenario) if fact.lower() not in told
  ]


def _user_line(episode: Episode) -> str:
  return episode.turns[-1].simulator if episode.turns else (episode.scenario.opening_line or '')


def _detail(episode: Episode) -> str:
  """The most telling short run of words in the user's last line; '' where there is none."""
  best, best_score = '', 1
  for sentence in words.sentences(_user_line(episode)):
    run = re.findall(r"[\w'’-]+", sentence)
    lowered = [word.lower() for word in run]
    telling = [len(word) > 2 and words.stem(word) not in words.COMMON_STEMS for word in lowered]
    inside = [flag or word in _LINKS for flag, word in zip(telling, lowered)]
    for start, word in enumerate(lowered):
      if not inside[start] or not (telling[start] or word in ('my', 'the', 'a', 'an')):
        continue
      score = telling[start]
      for last in range(start + 1, min(start + MAX_DETAIL_WORDS, len(run))):
        if not inside[last]:
          break
        score += telling[last]
        if telling[last] and score > best_score:
          best = ' '.join({'my': 'your'}.get(word.lower(), word) for word in run[start : last + 1])
          best_score = score
  return (
    best[:1].lower() + best[1:]
    if best.split()[:1] and best.split()[0].lower() in words.FUNCTION_WORDS
    else best
  )


def _decent(episode: Episode, rng: random.Random) -> str:
  """One fact of the sheet, or a piece of what was just said, in a small human line."""
  scene = episode.scenario.scene
  clauses = _open_clauses(episode)
  detail = _detail(episode)
  if detail and (not clauses or (episode.turns and rng.random() < 0.3)):
    return _fill(_fresh(lines.DECENT_ECHO[scene], _said(episode), rng), detail=detail)
  fact = rng.choice(clauses or list(sheet_facts.spoken(episode.scenario)))
  return _fill(_fresh(lines.DECENT[scene], _said(episode), rng), fact=fact)


def _order(scene: str) -> tuple[str, ...]:
  """Kinds of moves, in the order in which a skilled person makes them."""
  return {
    'support': ('soothes', 'fact', 'soothes', 'needs', 'soothes', 'needs', 'soothes', 'needs'),
    'defense': ('way_out', 'soothes', 'needs', 'way_out', 'soothes', 'needs', 'soothes', 'way_out'),
    'repair': ('act', 'effect', 'amends', 'soothes', 'needs', 'amends', 'soothes', 'needs'),
    'charm': ('fact', 'soothes', 'fact', 'needs', 'soothes', 'needs', 'soothes', 'fact'),
  }[scene]


def _skilled(episode: Episode, rng: random.Random) -> str:
  """Catch what this person needs, one thing a turn, with one fact at hand."""
  scenario = episode.scenario
  appraisal = scenario.appraisal
  kind = _order(scenario.scene)[len(episode.turns) % 8]
  clauses = _open_clauses(episode) or list(sheet_facts.spoken(scenario))
  if appraisal is None or kind == 'fact':
    return _skilled_sheet(episode, rng)
  items = getattr(appraisal, kind)
  cues = [
    (item, cue) for item in (items if isinstance(items, tuple) else (items,)) for cue in item.cues
  ]
  told = frozenset(words.stems(' '.join(_said(episode))))
  fresh = [
    (item, cue)
    for item, cue in cues
    if not any(set(words.stems(other)) <= told for other in item.cues)
  ]
  if not fresh:
    fresh = [(item, cue) for item, cue in cues if not set(words.stems(cue)) <= told] or cues
  _, cue = rng.choice(fresh)
  move = _fill(_fresh(lines.SKILLED[kind][scenario.scene], _said(episode), rng), cue=cue)
  fact = rng.choice(clauses)
  if len(move.split()) + len(fact.split()) <= 36 and rng.random() < 0.5:
    return f'{fact}. {move}'
  return move


def _skilled_sheet(episode: Episode, rng: random.Random) -> str:
  """The best that can be said from the own sheet alone: two moves, one of them specific to the scene."""
  scene = episode.scenario.scene
  clauses = _open_clauses(episode) or list(sheet_facts.spoken(episode.scenario))
  return _fill(
    _fresh(lines.SKILLED_OPEN[scene] + lines.DECENT[scene], _said(episode), rng),
    fact=rng.choice(clauses),
  )


def _polite(episode: Episode, rng: random.Random) -> str:
  pool = lines.POLITE_CHARM if episode.scenario.scene == 'charm' else lines.POLITE
  return _fresh(pool, _said(episode), rng)


def _yielder(episode: Episode, rng: random.Random) -> str:
  scenario = episode.scenario
  if scenario.scene != 'defense':
    return _fresh(lines.YIELDER['any'], _said(episode), rng)
  # Only the words for giving in are taken from the appraisal, so that it yields the right thing.
  given = (
    scenario.appraisal.yields.cues
    if scenario.appraisal and scenario.appraisal.yields
    else lines.YIELD_PLAIN
  )
  chosen = rng.choice(given)
  return _fill(
    _fresh(lines.YIELDER['defense'], _said(episode), rng),
    **{'yield': chosen[:1].upper() + chosen[1:]},
  )


def _fact_bag(episode: Episode, rng: random.Random) -> str:
  """All facts of the sheet as keywords, shuffled anew each time."""
  bag = [
    re.split(r'[,;:]', bullet)[0]
    for bullet in sheet_facts.bullets(episode.scenario.defender_prompt)
  ]
  rng.shuffle(bag)
  return ', '.join(bag) + '.'


def _from(pool: Sequence[str]) -> Callable[[Episode, random.Random], str]:
  return lambda episode, rng: _fresh(pool, _said(episode), rng)


PANEL = {
  defender.name: defender
  for defender in (
    ScriptedDefender(
      name='skilled',
      about='meets this person: facts, needs, acts (reads the appraisal)',
      reply_fn=_skilled,
    ),
    ScriptedDefender(
      name='decent', about='one fact of the own sheet in a small human line', reply_fn=_decent
    ),
    ScriptedDefender(
      name='polite_generic', about='a polite assistant that could talk to anyone', reply_fn=_polite
    ),
    ScriptedDefender(
      name='over_apologiser', about='sorry, again and again', reply_fn=_from(lines.OVER_APOLOGISER)
    ),
    ScriptedDefender(name='lecturer', about='explains life', reply_fn=_from(lines.LECTURER)),
    ScriptedDefender(
      name='list_maker', about='first, second, third', reply_fn=_from(lines.LIST_MAKER)
    ),
    ScriptedDefender(name='yielder', about='gives in to everything', reply_fn=_yielder),
    ScriptedDefender(name='hostile', about='insults and threats', reply_fn=_from(lines.HOSTILE)),
    ScriptedDefender(name='silent', about='says nothing', reply_fn=_from(lines.SILENT)),
    ScriptedDefender(
      name='fact_bag', about='all facts of the sheet as keywords', reply_fn=_fact_bag
    ),
  )
}
# Beside the panel: the best that the own sheet allows, for replies that a policy could have said.
SKILLED_SHEET = ScriptedDefender(
  name='skilled_sheet', about='two moves from the own sheet', reply_fn=_skilled_sheet
)


def get(name: str) -> ScriptedDefender:
  """Return a scripted defender by name.

  Raises:
    ValueError: no such defender.
  """
  every = {**PANEL, SKILLED_SHEET.name: SKILLED_SHEET}
  if name not in every:
    raise ValueError(f'scripted defender {name!r} is unknown; choose one of {", ".join(every)}')
  return every[name]
