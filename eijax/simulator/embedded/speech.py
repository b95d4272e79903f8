"""The spoken line: a reaction that fits mood and reply, and a fact that is still open.

It quotes only what the user would mention (known facts of the persona), never the
needs or what would soften, so that it is no hint sheet.
"""

import functools
import hashlib
import re

from eijax.simulator.embedded import phrases, words
from eijax.simulator.embedded.sheet import Sheet
from eijax.simulator.prompts import TALKS_KEPT, ParsedRequest

MAX_WORDS = 24
MAX_FACT_WORDS = 15
CURT_TRUST = 20

_SUBJECT_BEFORE = r'(?:^|[,;:.]\s+|\b(?:and|that|when|what|how|where|because|if|which|as|than|who|while|after|before|but|so|until|since|why|whether|though|or)\s+)'
# (Pattern, replacement), in their order.
_TO_FIRST = tuple(
  (re.compile(pattern, flags), replacement)
  for pattern, replacement, flags in (
    (r'\byou are\b', 'I am', re.I),
    (r"\byou're\b", "I'm", re.I),
    (r'\byou were\b', 'I was', re.I),
    (r"\byou've\b", "I've", re.I),
    (r"\byou'd\b", "I'd", re.I),
    (r"\byou weren't\b", "I wasn't", re.I),
    (r"\byou aren't\b", "I'm not", re.I),
    (rf'({_SUBJECT_BEFORE})you\b(?=\s+\w)', r'\1I', re.I),
    (r'\byou\b(?=\s*(?:[.,;]|$))', 'me', re.I),
    (r'\b(to|for|with|at|from|about|of|by|without|behind|beside|than)\s+you\b', r'\1 me', 0),
    (r'\bYour\b', 'My', 0),
    (r'\byour\b', 'my', 0),
    (r'\byourself\b', 'myself', 0),
    (r'\byours\b', 'mine', 0),
  )
)
_YOU = re.compile(r'\byou\b', re.I)
_QUOTED = re.compile(r'("[^"]*")')
_PAUSE = re.compile(r'[;:.]\s')


def speak(request: ParsedRequest, judgement, trust: int, seed_text: str) -> str:
  """Return the user's line after this round (`trust` is the level after it)."""
  language = request.language
  spoken = [said.text for said in request.history if said.speaker == 'you']
  group = _group(judgement)
  reaction = _pick(_reactions(language, request.scene, group), spoken, f'{seed_text}|reaction')
  if judgement.stop or group in ('yields', 'settled', 'broke off', 'idling'):
    return reaction
  if trust < CURT_TRUST and _seeded(f'{seed_text}|curt', 2):
    return reaction
  fact = _open_fact(request, judgement, spoken, seed_text)
  if fact is None:
    return reaction
  frame = _pick(phrases.PRESS[language][request.scene], [], f'{seed_text}|frame')
  # Without a pause before it, the quoted clause goes on in lower case.
  if not frame.startswith('{') and '. {' not in frame:
    fact = _lower_first(fact)
  line = frame.format(fact=fact)
  whole = f'{reaction} {line}'
  if language == 'zh':
    return (reaction + line)[:60]
  if len(whole.split()) <= MAX_WORDS:
    return whole
  short = f'{reaction} {fact[:1].upper()}{fact[1:]}'
  return short if len(short.split()) <= MAX_WORDS else reaction


def _group(judgement) -> str:
  if judgement.stop:
    return judgement.stop_reason
  if judgement.rule in phrases.GROUPS:
    return phrases.GROUPS[judgement.rule]
  return judgement.tier if judgement.tier != 'none' else 'nothing'


def _reactions(language: str, scene: str, group: str) -> tuple[str, ...]:
  return (
    phrases.SCENE[language][scene].get(group)
    or phrases.ANY[language].get(group)
    or phrases.SCENE[language][scene]['nothing']
  )


def _seeded(text: str, size: int) -> int:
  digest = hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=4).digest()
  return int.from_bytes(digest, 'big') % size


def _pick(options: tuple[str, ...], spoken: list[str], seed_text: str) -> str:
  """Pick one, first among those not said before in this talk."""
  fresh = [option for option in options if not any(option in line for line in spoken)] or list(
    options
  )
  return fresh[_seeded(seed_text, len(fresh))]


def _open_fact(request: ParsedRequest, judgement, spoken: list[str], seed_text: str) -> str | None:
  """Pick a known fact that has not been spoken yet, by either side if possible."""
  told = ' '.join(spoken)
  opening = next((said.text for said in request.history if said.speaker == 'you' and said.round == 0), '')
  quotes = [
    quote for quote in quotable(judgement.sheet, _addressed(request.persona, opening)) if _key(quote) not in told
  ]
  touched = {key for entry in judgement.credits for key in entry.used}
  met = frozenset().union(*(words.content_stems(item.text) for item in judgement.sheet.items if item.key in touched))
  fresh = [quote for quote in quotes if len(words.content_stems(quote) & met) < 2] or quotes
  if not fresh:
    return None
  # What was just said reminds the user of something near to it.
  said = judgement.reading.stems
  near = [quote for quote in fresh if words.content_stems(quote) & said]
  fresh = near or fresh
  return fresh[_seeded(f'{seed_text}|fact', len(fresh))]


def _key(quote: str) -> str:
  """The middle of a quote, which a changed first letter does not hide."""
  return quote[1:-1]


@functools.lru_cache(maxsize=TALKS_KEPT)
def _addressed(persona: str, opening: str) -> frozenset[str]:
  """Names that the persona sheet and the opening line give to the other person, who is not spoken of as 'he'."""
  section = re.search(r'###\s*Role and stance(.*?)(?:###|$)', persona, re.S)
  names = set(re.findall(r'\b[A-Z][a-zà-ÿ]{2,}\b', section.group(1))) if section else set()
  names |= set(re.findall(r',\s+([A-Z][a-zà-ÿ]{2,})\b(?=[.,?!])', opening))
  return frozenset(
    names
    - {'You', 'The', 'She', 'They', 'Your', 'Not', 'That', 'This', 'What', 'When', 'And', 'But'}
  )


@functools.lru_cache(maxsize=TALKS_KEPT)
def quotable(sheet: Sheet, addressed: frozenset[str]) -> tuple[str, ...]:
  """Return known facts as clauses in the first person; those that resist are left out."""
  quotes = []
  guarded = [item for item in sheet.items if item.kind in ('needs', 'soothes', 'amends', 'way_out')]
  for bullet in sheet.bullets:
    if sheet.language == 'zh':
      quote = bullet.replace('你', '我') if len(bullet) <= 40 else None
    else:
      quote = (
        None
        if any(re.search(rf'\b{re.escape(name)}\b', bullet) for name in addressed)
        else first_person(bullet)
      )
    if quote is None:
      continue
    stems = frozenset(words.stems(quote))
    if not any(item.match(stems, quote) for item in guarded):
      quotes.append(quote)
  return tuple(quotes)


def first_person(bullet: str) -> str | None:
  """Turn "You left your keys" into "I left my keys", or None where that is not safe."""
  text = bullet.strip().replace('’', "'")
  if len(text.split()) > MAX_FACT_WORDS:
    cut = [
      match.start()
      for match in _PAUSE.finditer(text)
      if 4 <= len(text[: match.start()].split()) <= MAX_FACT_WORDS
    ]
    if not cut:
      return None
    text = text[: cut[-1]] + '.'
  if text.count('"') % 2:
    return None
  parts = _QUOTED.split(text)
  for index in range(0, len(parts), 2):  # Quoted speech keeps its own pronouns.
    part = parts[index]
    if 'you' not in part.lower():
      continue
    for pattern, replacement in _TO_FIRST:
      part = pattern.sub(replacement, part)
    if _YOU.search(part):
      return None
    parts[index] = part
  text = ''.join(parts)
  return text if text[-1] in '.!?"' else text + '.'


def _lower_first(text: str) -> str:
  """Lower the first letter unless it is "I" or looks like a name."""
  first = text.split()[0].rstrip(",.;:'").lower()
  known = first in words.FUNCTION_WORDS and first not in ('i', "i'm", "i'd", "i've", "i'll")
  return text[:1].lower() + text[1:] if known else text
