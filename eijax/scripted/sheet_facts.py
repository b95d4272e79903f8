"""The known facts of a defender's own sheet, as sentences spoken to the user."""

import functools
import re

from eijax.scenarios.record import Scenario

_IRREGULAR = {
  'is': 'are',
  'was': 'were',
  'has': 'have',
  'does': 'do',
  "isn't": "aren't",
  "wasn't": "weren't",
  "hasn't": "haven't",
  "doesn't": "don't",
}


MIN_PLAIN = 3
_OWN_VOICE = re.compile(r"\bI\b|\bmy\b|\bme\b|\bmine\b")
_PRONOUNS = {'she': r'\b(?:she|hers?|herself)\b', 'he': r'\b(?:he|his|him|himself)\b', '': r'(?!)'}


@functools.lru_cache(maxsize=4096)
def bullets(sheet: str) -> tuple[str, ...]:
  """Return the bullets of the sheet's known facts, without their final stop; of a sheet without any, its sentences."""
  lines = [line.strip() for line in sheet.splitlines()]
  found = [line[2:] for line in lines if line.startswith('- ')]
  if not found:
    text = '\n'.join(line for line in lines if line and not line.startswith('#'))
    found = re.split(r'(?<=[.!?。！？])\s*', text)
  return tuple(line.strip().rstrip('.。') for line in found if line.strip()) or (sheet.strip(),)


def spoken(scenario: Scenario) -> tuple[str, ...]:
  """Return facts of the sheet as the defender may say them, sentences without their final stop.

  A sheet that speaks of "my car" is said as it stands. One that speaks to the defender ("your car") and of the user
  ("she waited") is said as it stands where neither occurs; only with fewer than MIN_PLAIN such facts the others
  follow, with their persons changed ("you left" becomes "I left").
  """
  return _spoken(scenario.defender_prompt, scenario.aggressor_prompt)


@functools.lru_cache(maxsize=4096)
def _spoken(sheet: str, persona: str) -> tuple[str, ...]:
  facts = tuple(map(_capital, bullets(sheet)))
  if any(_OWN_VOICE.search(fact) for fact in facts):
    return facts
  name = _user_name(persona)
  names = _names(sheet) | _names(persona)
  pronoun = _user_pronoun(sheet)
  persons = re.compile(
    '|'.join((r'\b(?:you|yours?|yourself)\b', _PRONOUNS[pronoun], *([rf'\b{re.escape(name)}\b'] * bool(name)))),
    re.I,
  )
  plain = tuple(fact for fact in facts if not persons.search(fact))
  if len(plain) >= MIN_PLAIN:
    return plain
  return plain + tuple(
    _capital(_to_user(_to_me(fact), name, pronoun, names)) for fact in facts if fact not in plain
  )


def _user_name(persona: str) -> str:
  """The name that the user goes by: the defender knows it too."""
  match = re.search(r'You are ([A-Z][\w\'’-]+)', persona)
  return match.group(1) if match else ''


def _names(text: str) -> set[str]:
  """Words that stand capitalised inside a sentence."""
  return set(re.findall(r'(?<=[a-zà-ÿ,;] )([A-ZÀ-ÞĀ-Ž][\w]+)', text))


def _user_pronoun(sheet: str) -> str:
  """'he' or 'she', whichever the sheet uses of the user in its first sections."""
  head = sheet.split('### Known facts')[0]
  counts = {
    word: len(re.findall(rf'\b(?:{forms})\b', head, re.I))
    for word, forms in (('she', 'she|her|hers'), ('he', 'he|his|him'))
  }
  return max(counts, key=counts.get) if any(counts.values()) else ''


def _to_me(text: str) -> str:
  """Turn "you left your keys" into "I left my keys", outside quoted speech."""
  parts = re.split(r'("[^"]*")', text)
  for index in range(0, len(parts), 2):
    part = parts[index]
    for pattern, replacement in (
      (r'\byou are\b', 'I am'),
      (r'\byou were\b', 'I was'),
      (r"\byou're\b", "I'm"),
      (r"\byou've\b", "I've"),
      (
        r'\b(to|for|with|at|from|about|of|by|without|behind|beside|than|told|asked|gave|left|drove|paid|sent|showed|lent|called|beat|hates|gives|tells|taught|let|lets|offered|promised|cost|shows|made|helped|wrote|asks|takes|brought|owes|saw|heard|needs|wants|lends|knows) you\b',
        r'\1 me',
      ),
      (r'\byou\b(?=\s*(?:[.,;:]|$))', 'me'),
      (r'\byou\b', 'I'),
      (r'\byours\b', 'mine'),
      (r'\byourself\b', 'myself'),
      (r'\byour\b', 'my'),
    ):
      part = re.sub(pattern, replacement, part, flags=re.I)
    parts[index] = part
  return ''.join(parts)


def _to_user(text: str, name: str, pronoun: str, names: set[str]) -> str:
  """Turn the user, where named or meant by a pronoun, into "you"."""
  if not re.match(r'\w+', text):
    return text  # Quoted speech first: the pronouns in it are not ours to change.
  others = [word for word in re.findall(r'\b[A-ZÀ-Þ][\w]+', text) if word in names and word != name]
  parts = re.split(r'("[^"]*")', text)
  for index in range(0, len(parts), 2):
    part = parts[index]
    if name:
      part = re.sub(rf"\b{re.escape(name)}[’']s\b", 'your', part)
      part = re.sub(rf'\b{re.escape(name)}\b', 'you', part)
    if pronoun == 'she' and not (others and re.match(r'\w+', text).group() in others):
      part = re.sub(r'\bshe\b', 'you', part, flags=re.I)
      part = re.sub(r'\bhers\b', 'yours', part)
      part = re.sub(r'\bherself\b', 'yourself', part)
      part = re.sub(
        r'\bher(?= \w)(?! (?:and|to|in|at|on|for|with|a|the|before|after|when|that|about|from|off|away|since)\b)',
        'your',
        part,
        flags=re.I,
      )
      part = re.sub(r'\bher\b', 'you', part, flags=re.I)
    elif pronoun == 'he' and not (others and re.match(r'\w+', text).group() in others):
      part = re.sub(r'\bhe\b', 'you', part, flags=re.I)
      part = re.sub(r'\bhis\b', 'your', part, flags=re.I)
      part = re.sub(r'\bhim\b', 'you', part, flags=re.I)
      part = re.sub(r'\bhimself\b', 'yourself', part)
    part = re.sub(
      r"\byou (is|was|has|does|isn't|wasn't|hasn't|doesn't)\b",
      lambda m: 'you ' + _IRREGULAR[m.group(1)],
      part,
    )
    part = re.sub(r'\byou ([a-z]{2,}[^s\W])s\b(?=\s|$)', r'you \1', part)
    parts[index] = part
  return ''.join(parts)


def _capital(text: str) -> str:
  return text[:1].upper() + text[1:]
