"""What each reply of a talk is worth, as a fold over the talk: tiers, repetition, costs.

Points are on the anger and trust axes, before mood, round caps and noise. A credit
depends on the texts alone, so earlier rounds are recomputed from the history.
Source of the rules: arXiv 2606.15532, section 2 (update rules of the simulator).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from eijax.simulator.embedded.reading import Reading
from eijax.simulator.prompts import TALKS_KEPT

# Gain of an item: scene -> kind -> (anger relief, trust). About one small step each.
GAINS = {
  'support': {
    'facts': (1.0, 1.5),
    'needs': (2.4, 2.8),
    'soothes': (2.4, 2.3),
    'commit': (0.5, 1.0),
  },
  'defense': {
    'facts': (0.8, 0.85),
    'needs': (2.1, 2.2),
    'soothes': (2.0, 1.7),
    'commit': (0.7, 1.0),
    'holds': (0.1, 0.4),
    'way_out': (2.1, 2.2),
  },
  'repair': {
    'facts': (0.75, 0.9),
    'needs': (2.2, 2.3),
    'soothes': (2.0, 2.1),
    'commit': (0.9, 1.2),
    'act': (1.4, 1.8),
    'effect': (1.8, 2.0),
    'amends': (2.2, 2.6),
  },
  'charm': {
    'facts': (0.5, 1.1),
    'needs': (1.4, 2.6),
    'soothes': (1.3, 2.3),
    'commit': (0.2, 0.8),
    'view': (0.25, 0.5),
  },
}
# Cost of a manner: rule -> (anger, trust), small 1..4, medium 5..8, large 8..10.
COSTS = {
  'empty': (1.6, 1.9),
  'off_topic': (1.2, 1.5),
  'garble': (1.1, 1.4),
  'canned': (0.15, 0.25),
  'structure': (1.0, 1.2),
  'list': (1.0, 1.15),
  'stage_direction': (1.1, 1.4),
  'lecture': (0.75, 0.85),
  'optimism': (1.0, 1.2),
  'procedure': (1.0, 0.9),
  'counter_blame': (5.0, 5.0),
  'threat': (9.0, 8.0),
  'hostile': (5.0, 5.0),
  'press_forgiveness': (1.2, 1.4),
  'excuse': (1.1, 1.4),
  'diagnosis': (1.2, 1.5),
  'compliment': (0.25, 0.4),
  'interview': (0.25, 0.4),
  'overeager': (0.6, 0.7),
  'padding': (0.7, 0.9),
  'advice': (0.5, 0.6),
  'forged': (1.6, 2.0),
  'parrot': (1.2, 1.5),
  'read_back': (2.0, 2.4),
  'bag': (2.6, 3.0),
  'inflame': (2.8, 2.6),
  'yields': (1.3, 2.4),
  'states_need': (1.1, 1.4),
  'long': (1.1, 1.4),
  'same_line': (1.2, 1.5),
  'empty_apology': (0.35, 0.5),
  'dull': (0.1, 0.2),
  'evasion': (0.1, 0.15),
  'questions': (0.3, 0.4),
}
SCENE_COSTS = {
  ('repair', 'counter_blame'): (8.5, 9.0),
  ('repair', 'excuse'): (1.6, 2.0),
  ('repair', 'empty_apology'): (0.5, 0.7),
  ('defense', 'counter_blame'): (6.5, 6.0),
  ('charm', 'compliment'): (0.4, 0.6),
  ('charm', 'interview'): (0.3, 0.45),
  ('support', 'empty'): (2.1, 2.4),
  ('support', 'advice'): (1.0, 1.2),
  ('charm', 'inflame'): (2.2, 2.4),
  ('defense', 'canned'): (0.1, 0.15),
  ('charm', 'canned'): (0.1, 0.2),
  ('defense', 'lecture'): (0.65, 0.7),
  ('defense', 'empty_apology'): (0.25, 0.3),
}
# Manners that wear out: each further use costs this share more.
WEARING = {
  'canned': 0.5,
  'compliment': 0.8,
  'interview': 0.6,
  'empty_apology': 0.35,
  'questions': 0.5,
  'advice': 0.2,
  'lecture': 0.2,
  'dull': 0.3,
}
SMALL, MEDIUM, LARGE = 0.75, 2.6, 5.5  # Lower ends of the three steps, in points.
ECHO = (0.5, 0.8)  # Taking up a telling word of the user's last line, in a sentence of one's own.
ECHO_REPEAT = (1.0, 1.0, 0.6, 0.3)
REPEAT = (1.0, 0.5, 0.0)  # Worth of an item at its first, second and later uses.
FORMULA = (1.0, 0.7, 0.45, 0.3)  # The same sentence frame with other nouns.
SAME_LINE = 0.72  # Jaccard of stems.
SAME_FRAME = 0.8
MIN_FRAME_WORDS = 4
MAX_SENTENCES = 4
SECOND_COST = 0.5
MAX_WORDS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Credit:
  """Worth of one reply. gains are >= 0; costs lists (rule, anger, trust); tier 'none'|'small'|'medium'|'large'."""

  gain_anger: float
  gain_trust: float
  costs: tuple[tuple[str, float, float], ...]
  tier: str
  rule: str  # The rule that weighed most: 'earned', 'nothing_new' or a cost.
  used: frozenset[tuple[str, int]]  # Items that earned.
  repeats: int  # Earlier lines that were practically this one.
  flat: bool

  @property
  def good(self) -> bool:
    return self.tier != 'none' and self.net > 0

  @property
  def net(self) -> float:
    cost = sum(anger + trust for _, anger, trust in self.costs)
    return self.gain_anger + self.gain_trust - cost


def tier_of(points: float) -> str:
  """Name the step of a gain in points."""
  if points < SMALL:
    return 'none'
  return 'small' if points < MEDIUM else 'medium' if points < LARGE else 'large'


def fold(scene: str, readings: Sequence[Reading]) -> tuple[Credit, ...]:
  """Return the credit of each reply, in order; each depends only on itself and earlier ones."""
  state = _START
  for reading in readings:
    state = _after(state, scene, reading)
  return state.credits


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Fold:
  """Some replies and their credits, how often an item was used and a manner shown in them.

  Never changed, and compared by identity, as readings are: a talk asks for one more reply at a time, and so
  finds what goes before.
  """

  readings: tuple[Reading, ...] = ()
  credits: tuple[Credit, ...] = ()
  uses: Mapping[object, int] = dataclasses.field(default_factory=dict)
  manners: Mapping[str, int] = dataclasses.field(default_factory=dict)


_START = _Fold()


@functools.lru_cache(maxsize=7 * TALKS_KEPT)  # Fewer than readings are kept: it keeps none alive that is forgotten there.
def _after(before: _Fold, scene: str, reading: Reading) -> _Fold:
  earlier = before.readings
  uses, manners = dict(before.uses), dict(before.manners)
  repeats = sum(_jaccard(reading.stems, other.stems) >= SAME_LINE for other in earlier)
  frames = sum(_same_frame(_frame(reading.skeleton), _frame(other.skeleton)) for other in earlier)
  anger, trust, earned = _gains(scene, reading, uses)
  factor = FORMULA[min(frames, 3)] * REPEAT[min(repeats, 2)] * _fluency(reading)
  if (
    reading.flags & {'bag', 'read_back', 'parrot', 'forged', 'empty', 'hostile', 'threat', 'list'}
    or reading.yields
  ):
    factor *= (
      0.0
      if reading.flags & {'bag', 'read_back', 'forged', 'empty', 'threat', 'hostile'}
      or reading.yields
      else 0.5
    )
  anger, trust = anger * factor, trust * factor
  for sentence in reading.sentences:
    for item in sentence.used + sentence.listed:
      uses[item.key] = uses.get(item.key, 0) + 1
    if sentence.commits:
      uses['commit'] = uses.get('commit', 0) + 1
  if any(sentence.echoes for sentence in reading.sentences):
    uses['echo'] = uses.get('echo', 0) + 1
  if reading.view:
    uses['view'] = uses.get('view', 0) + 1
  if reading.holds:
    uses['holds'] = uses.get('holds', 0) + 1
  tier = tier_of(max(anger, trust))
  costs = _costs(scene, reading, len(earlier), repeats, tier, earlier, manners)
  for name, _, _ in costs:
    manners[name] = manners.get(name, 0) + 1
  cost = sum(a + t for _, a, t in costs)
  rule = (
    max(costs, key=lambda entry: entry[1] + entry[2])[0]
    if costs and cost > anger + trust
    else ('earned' if tier != 'none' else 'nothing_new')
  )
  credit = Credit(
    gain_anger=anger,
    gain_trust=trust,
    costs=tuple(costs),
    tier=tier,
    rule=rule,
    used=frozenset(earned) if factor else frozenset(),
    repeats=repeats,
    flat=tier == 'none' or cost >= anger + trust,
  )
  return _Fold(readings=(*earlier, reading), credits=(*before.credits, credit), uses=uses, manners=manners)


def _gains(scene: str, reading: Reading, uses: dict) -> tuple[float, float, list]:
  """Sum the gains of a reply: in a sentence the best item counts whole, the others half."""
  table = GAINS[scene]
  spent = dict(uses)
  seen_facts = 0
  anger = trust = 0.0
  earned = []
  for sentence in reading.sentences[:3]:
    worths = []
    for item in sentence.used:
      if item.kind not in table:
        continue
      worth = REPEAT[min(spent.get(item.key, 0), 2)]
      if item.kind == 'facts':
        worth *= (1.0, 0.5, 0.0)[min(seen_facts, 2)]
        seen_facts += 1
      if item.kind == 'amends' and not _named_act(reading, uses):
        worth *= 0.6
      spent[item.key] = spent.get(item.key, 0) + 1
      if worth > 0:
        earned.append(item.key)
        worths.append((worth * table[item.kind][0], worth * table[item.kind][1]))
    if sentence.commits:
      worth = REPEAT[min(spent.get('commit', 0) // 2, 2)]
      worths.append((worth * table['commit'][0], worth * table['commit'][1]))
      spent['commit'] = spent.get('commit', 0) + 1
    if sentence.echoes and not earned:
      worth = ECHO_REPEAT[min(spent.get('echo', 0), 3)] if spent.get('echo', 0) < 99 else 0.0
      worths.append((worth * ECHO[0], worth * ECHO[1]))
      spent['echo'] = 99  # Once a reply.
    worths.sort(key=sum, reverse=True)
    for rank, (a, t) in enumerate(worths[:4]):
      anger += a * (1.0 if rank == 0 else 0.5)
      trust += t * (1.0 if rank == 0 else 0.5)
  if scene == 'defense' and reading.holds and not reading.yields:
    worth = REPEAT[min(uses.get('holds', 0), 2)]
    anger += worth * table['holds'][0]
    trust += worth * table['holds'][1]
  if scene == 'charm' and reading.view and reading.tied and not reading.all_questions:
    worth = (1.0, 1.0, 0.6, 0.4)[min(uses.get('view', 0), 3)] * (1.0 if earned else 0.6)
    anger += worth * table['view'][0]
    trust += worth * table['view'][1]
  return anger, trust, earned


def _named_act(reading: Reading, uses: dict) -> bool:
  return any(key[0] == 'act' for key in reading.used) or any(
    key[0] == 'act' for key in uses if isinstance(key, tuple)
  )


def _costs(
  scene, reading, index, repeats, tier, earlier, manners
) -> list[tuple[str, float, float]]:
  """List the costs of a reply, each (rule, anger, trust)."""
  named = _manners(scene, reading, index, repeats, tier != 'none', earlier)
  costs = []
  for name in sorted(named):
    anger, trust = SCENE_COSTS.get((scene, name), COSTS[name])
    scale = 1.0 + WEARING.get(name, 0.0) * min(manners.get(name, 0), 3)
    if name == 'garble':
      scale = min(reading.garble, 2.5)
    elif name == 'same_line':
      scale = 0.4 if repeats == 1 else 1.0 + 0.2 * min(repeats - 2, 3)
    elif name == 'bag':
      scale = 1.0 + 0.1 * min(max(reading.num_facts - 4, 0), 4)
    costs.append((name, anger * scale, trust * scale))
  # Two manners in one reply cost less than both apart, and more than either.
  costs.sort(key=lambda entry: entry[1] + entry[2], reverse=True)
  costs = costs[:1] + [
    (name, SECOND_COST * anger, SECOND_COST * trust) for name, anger, trust in costs[1:]
  ]
  excess = (
    max(reading.num_sentences - MAX_SENTENCES, 0) + max(reading.num_words - MAX_WORDS, 0) / 15
  )
  if excess > 0 and 'list' not in named:
    anger, trust = COSTS['long']
    scale = min(0.7 + 0.3 * excess, 2.5)
    costs.append(('long', anger * scale, trust * scale))
  return costs


def _manners(scene, reading, index, repeats, earns, earlier) -> set[str]:
  """Name the manners that count in this place of the talk."""
  named = set(reading.flags)
  # Advice that also catches the matter is borne, in Support only from round 3 on.
  borne = earns and (scene in ('defense', 'charm') or (scene == 'support' and index >= 2))
  if 'lecture' in named or borne:
    named.discard('advice')
  if reading.used:  # A question about this very matter is no questionnaire.
    named.discard('interview')
  if 'bag' in named or 'read_back' in named:
    named.discard('parrot')
  if reading.yields:
    named.add('yields')
  if reading.inflamed:
    named.add('inflame')
  if reading.states_need and not earns and any(other.states_need for other in earlier):
    named.add('states_need')
  if reading.garble >= 0.5:
    named.add('garble')
  if reading.sorry and not earns:
    if scene != 'repair' or any(other.sorry for other in earlier):
      named.add('empty_apology')
  if repeats >= 2 or (repeats == 1 and not earns):
    named.add('same_line')
  if 'empty' in named:
    return named
  if reading.all_questions and not earns and any(other.all_questions for other in earlier[-2:]):
    named.add('questions')
  if scene == 'charm' and not earns and not reading.view:
    named.add('dull')
  if scene == 'defense' and not earns and not reading.holds and not reading.yields and index >= 1:
    named.add('evasion')
  return named


def _fluency(reading: Reading) -> float:
  return max(0.0, 1.0 - 0.5 * reading.garble)


def _jaccard(left: frozenset, right: frozenset) -> float:
  common = len(left & right)
  return common / (len(left) + len(right) - common) if left and right else float(left == right)


@functools.lru_cache(maxsize=1 << 11)
def _frame(skeleton: tuple[str, ...]) -> frozenset[tuple[str, str]]:
  """Neighbours in a run of function words; empty where that is too short to be a frame."""
  return frozenset(zip(skeleton, skeleton[1:])) if len(skeleton) >= MIN_FRAME_WORDS else frozenset()


def _same_frame(left: frozenset, right: frozenset) -> bool:
  """Whether two lines share their run of function words: one template, other nouns."""
  if not left or not right:
    return False
  return len(left & right) >= SAME_FRAME * max(len(left), len(right))
