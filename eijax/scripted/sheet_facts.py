"""The known facts of a defender's own sheet, as clauses that can be spoken to the user."""

import functools
import re

from eijax.scenarios.record import Scenario

_NUMBERS = frozenset(
  'one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen twenty thirty forty fifty hundred half'.split()
)
_NO_ARTICLE = frozenset(
  'a an the my your his her their our its this that these those he she they it we i you no nobody nothing everyone somebody both all every each some most only '
  'monday tuesday wednesday thursday friday saturday sunday january february march april may june july august september october november december '
  'in on at by for from with to of after before since until last next yesterday today tonight tomorrow when where page room table word there own'.split()
)
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


@functools.lru_cache(maxsize=4096)
def bullets(sheet: str) -> tuple[str, ...]:
  """Return the bullets of the sheet's known facts, without their final stop."""
  return tuple(line[2:].strip().rstrip('.') for line in sheet.splitlines() if line.startswith('- '))


def clauses(scenario: Scenario) -> tuple[str, ...]:
  """Return the defender's facts as clauses in the defender's voice, spoken to the user."""
  return _clauses(scenario.defender_prompt, scenario.aggressor_prompt)


@functools.lru_cache(maxsize=4096)
def _clauses(sheet: str, persona: str) -> tuple[str, ...]:
  name = _user_name(persona)
  names = _names(sheet) | _names(persona)
  pronoun = _user_pronoun(sheet)
  return tuple(
    _lower_start(_to_user(_to_me(bullet), name, pronoun, names), names) for bullet in bullets(sheet)
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


def _lower_start(text: str, names: set[str]) -> str:
  """Lower the first letter and put an article before a bare noun, so that the clause stands inside a sentence."""
  first = re.match(r"[\w'’-]+", text)
  if not first:
    return text
  word = first.group()
  if re.match(r"[\w'’-]+ [A-ZÀ-Þ]", text) and word.lower() not in _NO_ARTICLE:
    return text  # "Orpheus Island", "Swift Current": a name of two words.
  if word in names or word in ('I', "I'm", "I've") or word[1:].lower() != word[1:]:
    return text
  lowered = text[:1].lower() + text[1:]
  plain = word.lower().split("'")[0].split('’')[0]
  if (
    plain in _NO_ARTICLE
    or plain in _NUMBERS
    or plain[0].isdigit()
    or plain.endswith(('ing', 'ly', 'ed'))
  ):
    return (
      lowered
      if plain not in ('monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday')
      and plain
      not in (
        'january february march april may june july august september october november december'.split()
      )
      else text
    )
  return f'the {lowered}'
