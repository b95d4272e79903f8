"""Read one reply: what it touches, what it does with it, and which manners cost.

A reading depends on the reply, the user's line before it and the sheet; never on
mood, round or seed.
"""

import dataclasses
import functools
import re

from eijax.episodes.imitation import imitations
from eijax.simulator.embedded import lexicon, words
from eijax.simulator.embedded.sheet import Item, Sheet, trigrams
from eijax.simulator.prompts import TALKS_KEPT

MAX_GOOD_SENTENCES = 4
MAX_SENTENCE_WORDS = 32
MIN_SENTENCE_WORDS = 4
MIN_FUNCTION_SHARE = 0.28  # Spoken English lies between 0.4 and 0.7; keyword lists below 0.2.
BAG_FACTS = 4
MIN_TIED_SHARE = 0.25  # Of the content words that must belong to the matter.
_PARROT_SHARE = 0.5
MIN_READ_BACK = 8  # Three-word runs: shorter copies are a fact taken up, not a sheet read out.

# Pairs of neighbours that no fluent sentence holds: a cheap sign of broken grammar.
_DETERMINER = 'the|a|an|my|your|our|their'
_BROKEN = re.compile(
  rf'\b(?:(?:{_DETERMINER}) (?:{_DETERMINER}|is|are|was|were|of|and|to|in|i|you|he|she|we|they|it|will|can|do|did|not)\b'
  r'|(?:i|he|she|it) are\b|i is\b|(?:of|to|and|with|for|from|at) (?:of|and|is|are|was)\b'
  r'|(\w+) \1 \1\b|(?!had|that|very|so|no|really|sorry|her|is)(\w+) \2\b|(?:i you|he i|we i)\b'
  r'|(?:will|can|would) (?:will|can|would|is|was)\b)|(?:^|, )(?:you|we|they) is\b'
)
_DANGLING = re.compile(r'\b(?:the|a|an|of|and|or|but|my|our|with|i)\s*[.?!]?$')


@dataclasses.dataclass(frozen=True, kw_only=True)
class SentenceReading:
  """One sentence: items used (something is done with them), items only listed."""

  used: tuple[Item, ...]
  listed: tuple[Item, ...]
  inflamed: tuple[Item, ...]
  commits: bool
  echoes: bool  # Takes up a telling word of the user's last line.
  question: bool
  holds: bool
  yields: bool
  states_need: bool  # Names a need as a label ("you want to ...") and no more.

  @property
  def touched(self) -> tuple[Item, ...]:
    return self.used + self.listed


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
  """One reply; compared by identity, so that caches hash it fast. flags: names of costly manners. stems: all stems; skeleton: function stems in order."""

  text: str
  sentences: tuple[SentenceReading, ...]
  flags: frozenset[str]
  num_words: int
  num_sentences: int
  num_facts: int
  garble: float  # Signs of broken grammar per sentence; 0 is fluent.
  stems: frozenset[str]
  skeleton: tuple[str, ...]
  tied: bool  # Shares content with the situation.
  view: bool  # Speaks of the speaker's own view or experience.
  sorry: bool
  holds: bool
  yields: bool
  inflamed: tuple[Item, ...]
  states_need: bool

  @functools.cached_property
  def used(self) -> frozenset[tuple[str, int]]:
    return frozenset(item.key for sentence in self.sentences for item in sentence.used)

  @functools.cached_property
  def all_questions(self) -> bool:
    return bool(self.sentences) and all(sentence.question for sentence in self.sentences)


@functools.lru_cache(maxsize=8 * TALKS_KEPT)  # One for each round.
def read(sheet: Sheet, text: str, before: str) -> Reading:
  """Read `text`, said in answer to the user's line `before`."""
  plain = words.normalise(text)
  parts = words.sentences(plain)
  stem_list = words.stems(plain)
  heard = words.content_stems(before)
  acts = [_acts(part) for part in parts]
  read_parts = []
  for index, part in enumerate(parts):
    neighbour = any(acts[near] for near in (index - 1, index + 1) if 0 <= near < len(parts))
    read_parts.append(_read_sentence(sheet, part, acts[index], neighbour, heard))
  content = words.content_stems(plain)
  known = sheet.vocabulary | heard
  tied = any(part.used or part.listed for part in read_parts) or (
    bool(content) and len(content & known) >= MIN_TIED_SHARE * len(content)
  )
  facts = {item.index for part in read_parts for item in part.touched if item.kind == 'facts'}
  return Reading(
    text=text,
    sentences=tuple(read_parts),
    num_words=len(words.words(plain)) + words.chinese_chars(plain) // 2,
    num_sentences=len(parts),
    num_facts=len(facts),
    flags=_flags(text, plain, parts, sheet, before, stem_list, content, tied, len(facts)),
    garble=_garble(parts, sheet.language) + _gibberish(text, parts, known, sheet.language),
    stems=frozenset(stem_list),
    skeleton=tuple(stem for stem in stem_list if stem in words.FUNCTION_STEMS),
    tied=tied,
    view=bool(lexicon.VIEWS.search(plain)),
    sorry=bool(lexicon.SORRY.search(plain)),
    holds=any(part.holds for part in read_parts),
    yields=any(part.yields for part in read_parts),
    inflamed=tuple(item for part in read_parts for item in part.inflamed),
    states_need=any(part.states_need for part in read_parts),
  )


def _read_sentence(
  sheet: Sheet, part: str, acts: bool, neighbour: bool, heard: frozenset[str]
) -> SentenceReading:
  """Read one sentence; acts/neighbour: whether it, or the one beside it, does something."""
  stems = frozenset(words.stems(part))
  shape = _sentence_like(part, sheet.language)
  refuses = sheet.scene == 'defense' and bool(lexicon.REFUSES.search(part))
  labels = bool(lexicon.LABELS_NEED.match(part)) and not lexicon.OFFER.search(part)
  used, listed, inflamed = [], [], []
  holds, yields, states_need = refuses, False, False
  for item in sheet.items:
    cue = item.match(stems, part)
    if cue is None:
      continue
    if item.kind == 'inflames':
      inflamed += [] if _negated(part, cue) else [item]
    elif item.kind == 'yields':
      yields = yields or not _negated(part, cue)
    elif item.kind in ('holds', 'boundary'):
      holds = holds or item.kind == 'holds' or bool(lexicon.REFUSAL.search(part))
    elif item.kind == 'needs' and labels:
      states_need = True
    elif shape and _does_something(item.kind, part, acts, neighbour):
      used.append(item)
    else:
      listed.append(item)
  content = words.content_stems(part)
  echoed = content & heard
  promises = shape and lexicon.PROMISE.search(part) and lexicon.WHEN.search(part)
  return SentenceReading(
    used=tuple(used),
    listed=tuple(listed),
    inflamed=tuple(inflamed),
    commits=bool(promises and (used or content & sheet.vocabulary)),
    echoes=bool(shape and echoed and not used and (acts or neighbour)),
    question=bool(lexicon.QUESTION.search(part)),
    holds=holds,
    # "I won't say okay, I'll sign" keeps it; "I won't argue. Okay, I'll sign" does not.
    yields=yields and (not holds or _caves(part)),
    states_need=states_need,
  )


def _acts(part: str) -> bool:
  """Whether the sentence asks, offers, owns, judges or tells of oneself."""
  return any(
    pattern.search(part)
    for pattern in (
      lexicon.QUESTION,
      lexicon.SELF,
      lexicon.OFFER,
      lexicon.OWNS,
      lexicon.VIEWS,
      lexicon.STANCE,
    )
  )


def _does_something(kind: str, part: str, acts: bool, neighbour: bool) -> bool:
  if kind == 'act':  # Owned in the first person, not described.
    return bool(_I_OR_MINE.search(part))
  if kind == 'amends':
    return bool(
      lexicon.OFFER.search(part)
      or lexicon.PROMISE.search(part)
      or _I.search(part)
    )
  if kind == 'facts':
    return acts or neighbour
  return acts or bool(lexicon.PERSON.search(part))


def _sentence_like(part: str, language: str) -> bool:
  if language == 'zh' and words.chinese_chars(part) >= 4:
    return words.chinese_chars(part) <= 60
  run = words.words(part)
  if not MIN_SENTENCE_WORDS <= len(run) <= MAX_SENTENCE_WORDS:
    return False
  share = sum(word in words.FUNCTION_WORDS for word in run) / len(run)
  return share >= MIN_FUNCTION_SHARE and not _num_broken(_spoken(part))


_I = re.compile(r"\bi\b|\bi'|我")
_I_OR_MINE = re.compile(r"\bi\b|\bi'|\bmy\b|\bme\b|我")
_I_OR_ASKED = re.compile(r"\bi\b|\bi'|\?")
_CAVES = re.compile(
  r'\b(?:okay|ok|fine|alright|all right|just this once|you win|i give (?:in|up))\b|好吧|算了|依你'
)
_STUTTER = re.compile(r'(.{2,6})\1{2,}')
_LETTER = re.compile(r'[^\W_]')
_BLANKS = re.compile(r'\s+')
_PAUSE = re.compile(r"\s*[^\w\s']+\s*")


@functools.lru_cache(maxsize=1 << 10)
def _spoken(part: str) -> str:
  """Words with every pause as a comma, so that neighbours across a pause are no pair."""
  return _PAUSE.sub(', ', part).strip(', ')


@functools.lru_cache(maxsize=1 << 10)
def _num_broken(spoken: str) -> int:
  return len(_BROKEN.findall(spoken))


def _negated(part: str, cue: frozenset[str]) -> bool:
  """Whether a negation stands in a clause that holds a content word of the cue."""
  if any(lexicon.NEGATION.search(word) for word in cue):
    return False
  content = {s for s in cue if s not in words.FUNCTION_STEMS} or cue
  return any(
    lexicon.NEGATION.search(clause) and content & set(words.stems(clause))
    for clause in words.clauses(part)
  )


def _caves(plain: str) -> bool:
  return bool(_CAVES.search(plain))


def _garble(parts: list[str], language: str) -> float:
  if not parts:
    return 0.0
  if language == 'zh':
    return float(sum(bool(_STUTTER.search(part)) for part in parts)) / len(parts)
  signs = 0.0
  for part in parts:
    run = words.words(part)
    spoken = _spoken(part)
    signs += (
      _num_broken(spoken)
      + bool(_DANGLING.search(spoken))
      + sum(len(word) > 18 for word in run)
    )
    pairs = list(zip(run, run[1:]))
    signs += max(0, len(pairs) - len(set(pairs)) - 2)
    signs += len(run) > 40
    if len(run) >= 6 and sum(
      word in words.FUNCTION_WORDS for word in run
    ) < MIN_FUNCTION_SHARE * len(run):
      signs += 1
  return signs / len(parts)


# Letters alone, capitals or digits inside a word: no keyboard slip, no spelling of a name.
_SCRAPS = re.compile(
  r"(?<![\w'’.&/-])[b-hj-np-z](?![\w'’.)/&-])|\b[a-z]+[A-Z]\w*|\b[A-Z]{2,}[a-z]{2,}|\b[a-z]{2,}\d+\b|\b\d+[a-z]{4,}"
)
_LOWER_WORD = re.compile(r"(?<![\w'’])[a-z]{3,}(?:'[a-z]+)?(?!\w)")
MAX_UNKNOWN_SHARE = 1 / 12  # A slip or a foreign word in a sentence is no gibberish.


def _gibberish(text: str, parts: list[str], known: frozenset[str], language: str) -> float:
  """Scraps and words that no English list and nobody in this talk knows, per sentence."""
  if not parts or language == 'zh':
    return 0.0
  plain = text.replace('’', "'")
  run = _LOWER_WORD.findall(plain)
  unknown = sum(not words.is_english(word) and words.stem(word) not in known for word in run)
  if unknown == 1 <= MAX_UNKNOWN_SHARE * len(words.words(plain)):
    unknown = 0
  return (unknown + len(_SCRAPS.findall(plain))) / len(parts)


MIN_ENUMERATED = 5


def _enumerates(part: str, known: frozenset[str]) -> bool:
  """Whether a sentence only strings pieces of the matter together, hardly anybody speaking in it."""
  pieces = part.split(',')
  return (
    len(pieces) >= MIN_ENUMERATED
    and sum(bool(words.content_stems(piece) & known) for piece in pieces) >= MIN_ENUMERATED - 1
    and sum(bool(_I_OR_ASKED.search(piece)) for piece in pieces) < len(pieces) / 2
  )


_PATTERNS = (
  ('canned', lexicon.CANNED),
  ('structure', lexicon.STRUCTURE),
  ('list', lexicon.LIST),
  ('stage_direction', lexicon.STAGE_DIRECTION),
  ('lecture', lexicon.LECTURE),
  ('optimism', lexicon.OPTIMISM),
  ('procedure', lexicon.PROCEDURE),
  ('counter_blame', lexicon.COUNTER_BLAME),
  ('threat', lexicon.THREAT),
  ('hostile', lexicon.HOSTILE),
  ('press_forgiveness', lexicon.PRESS_FORGIVENESS),
  ('excuse', lexicon.EXCUSE),
  ('diagnosis', lexicon.DIAGNOSIS),
  ('compliment', lexicon.COMPLIMENT),
  ('interview', lexicon.INTERVIEW),
  ('overeager', lexicon.OVEREAGER),
  ('padding', lexicon.PADDING),
  ('advice', lexicon.ADVICE),
)


# Manners that belong to no situation anyway: they are not off the topic as well.
_GENERIC = frozenset(
  (
    'canned',
    'structure',
    'list',
    'lecture',
    'optimism',
    'advice',
    'hostile',
    'threat',
    'interview',
    'compliment',
    'forged',
  )
)


def _flags(text, plain, parts, sheet, before, stem_list, content, tied, num_facts) -> frozenset[str]:
  if not parts or not _LETTER.search(plain):
    return frozenset({'empty'})
  # The list pattern needs the line breaks; the others read the reply as one line.
  line = _BLANKS.sub(' ', plain)
  flags = {name for name, pattern in _PATTERNS if pattern.search(plain if name == 'list' else line)}
  if imitations(text):
    flags.add('forged')
    flags.discard('list')
  run = tuple(zip(stem_list, stem_list[1:], stem_list[2:]))
  if len(run) >= 3:
    said = trigrams(before)
    if sum(gram in said for gram in run) > _PARROT_SHARE * len(run):
      flags.add('parrot')
    if len(run) >= MIN_READ_BACK and sum(
      gram in sheet.persona_trigrams for gram in run
    ) > _PARROT_SHARE * len(run):
      flags.add('read_back')
  num_words = len(stem_list)
  if num_facts > BAG_FACTS or (num_facts == BAG_FACTS and num_words < 9 * num_facts):
    flags.add('bag')
  elif any(_enumerates(part, sheet.vocabulary | words.content_stems(before)) for part in parts):
    flags.add('bag')
  if not tied and len(content) >= 3 and not flags & _GENERIC:
    flags.add('off_topic')
  if len(stem_list) <= 2 and not tied and not lexicon.SORRY.search(plain):
    flags.add('empty')
  return frozenset(flags)
