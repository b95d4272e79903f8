"""Find the JSON objects in a language model's text, as it really writes them.

Survives prose and think blocks around the object, code fences, comments, trailing and
missing commas, `+3`, wrong escapes, raw newlines, unescaped and curly quotes, and an
object cut off by the token limit. General repair libraries were tried: they make up
objects from braces in the prose, and do not say whether an object was cut off.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Mapping
from typing import Any

# Bounds the work on hostile text such as a thousand opening braces.
_MAX_STARTS = 200
_MAX_DEPTH = 32
_THINK = re.compile(r'<[ \t]*(/?)[ \t]*think(?:ing)?[ \t]*>', re.IGNORECASE)
_START = re.compile(r'\{(?=\s*(?:["\'“”}/#A-Za-z_]|\Z))')
_SPACE = re.compile(r'(?:\s+|//[^\n]*|/\*.*?(?:\*/|\Z)|#[^\n]*)+', re.DOTALL)
_NUMBER = re.compile(r'[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?')
_BARE = re.compile(r'[^\s,，:：{}\[\]"“”]+')
_CLOSERS = {'"': '"', '“': '”“"', '”': '”“"', "'": "'"}
_ESCAPES = {'n': '\n', 't': '\t', 'r': '\r', 'b': '\b', 'f': '\f'}
# What may follow a closing quote; anything else makes the quote part of the text.
_AFTER_KEY = re.compile(r'\s*[:：]')
_AFTER_VALUE = re.compile(
    r'\s*(?:\Z|[}\]]|//|/\*|[,，]\s*(?:\Z|["“”}\]]|//|/\*|[A-Za-z_]\w*["\']?\s*[:：])|\n\s*["“”][\w -]{1,40}["“”]\s*[:：])'
)
_AFTER_ITEM = re.compile(r'\s*(?:\Z|[,，\]}]|//|/\*)')
_WORDS = {
    'true': True, 'false': False, 'null': None, 'none': None, 'True': True, 'False': False, 'None': None,
}


@dataclasses.dataclass(frozen=True)
class Found:
  """An object in a text. is_cut: the text ended inside it; in_thought: within a think block."""

  value: dict[str, Any]
  is_cut: bool
  in_thought: bool


class _Malformed(Exception):
  """Not an object after all."""


def _number(lexeme: str) -> int | float | str:
  """A finite number; text where it is none, so that every value can be stored as JSON."""
  try:
    value = float(lexeme)
    if abs(value) < 1e15:
      return int(lexeme) if re.fullmatch(r'[+-]?\d+', lexeme) else value
  except ValueError:
    pass
  return lexeme[:40]


# The C scanner reads what is sound JSON but for raw newlines, which strict=False admits.
_SOUND = json.JSONDecoder(strict=False, parse_constant=str, parse_float=_number, parse_int=_number)


def find_objects(text: str) -> list[Found]:
  """All outermost JSON objects of a text, in order. Never raises."""
  found: list[Found] = []
  thought_ends = 0
  position = num_starts = 0
  while num_starts < _MAX_STARTS:
    start = _START.search(text, position)
    tag = _THINK.search(text, position, start.start() if start else len(text))
    if tag is not None:
      position = tag.end()
      if tag.group(1):
        # What stands before a closing tag was thought, even without an opening one.
        found = [dataclasses.replace(item, in_thought=True) for item in found]
      elif tag.start() >= thought_ends:
        end = next((t for t in _THINK.finditer(text, position) if t.group(1)), None)
        thought_ends = end.start() if end else len(text)
      continue
    if start is None:
      break
    num_starts += 1
    value, position, is_cut = _object_at(text, start.start())
    if value is not None:
      found.append(Found(value, is_cut, in_thought=start.start() < thought_ends))
  return found


def _object_at(text: str, start: int) -> tuple[dict | None, int, bool]:
  """Read the object that opens at `start`: (value or None, where to go on, is_cut)."""
  try:
    value, end = _SOUND.raw_decode(text, start)
    return value, end, False
  except (ValueError, RecursionError):
    pass
  reader = _Reader(text, start)
  try:
    value = reader.object(0)
  except _Malformed:
    return None, start + 1, False
  return value, reader.position, reader.is_cut


class _Reader:
  """A recursive-descent reader that prefers a guess to a failure inside an object."""

  def __init__(self, text: str, position: int):
    self.text = text
    self.position = position
    self.is_cut = False

  def _peek(self) -> str:
    """Skip blanks and comments; the next character, '' at the end of the text."""
    space = _SPACE.match(self.text, self.position)
    if space:
      self.position = space.end()
    return self.text[self.position : self.position + 1]

  def object(self, depth: int) -> dict[str, Any]:
    if depth > _MAX_DEPTH:
      raise _Malformed
    self.position += 1
    result: dict[str, Any] = {}
    while True:
      char = self._peek()
      if char and char in ',，':
        self.position += 1
      elif char == '}':
        self.position += 1
        return result
      elif char == '':
        self.is_cut = True
        return result
      else:
        key = self._key()
        if self.is_cut:
          return result
        value, is_whole = self._value(depth, _AFTER_VALUE)
        if is_whole:
          result[key] = value
        if self.is_cut:
          return result

  def _key(self) -> str:
    char = self.text[self.position]
    if char in _CLOSERS:
      key = self._string(_AFTER_KEY)
    else:
      bare = _BARE.match(self.text, self.position)
      if not bare:
        raise _Malformed
      key = bare.group()
      self.position = bare.end()
    char = self._peek()
    if char == '':
      self.is_cut = True
    elif char in ':：':
      self.position += 1
    else:
      raise _Malformed
    return key

  def _value(self, depth: int, after_string: re.Pattern) -> tuple[Any, bool]:
    """Read a value: (value, whether it is whole enough to be used)."""
    char = self._peek()
    if char == '':
      self.is_cut = True
      return None, False
    if char == '{':
      return self.object(depth + 1), True
    if char == '[':
      return self._array(depth + 1), True
    if char in _CLOSERS:
      return self._string(after_string), True
    if char in ',，}]':
      return None, False  # A key without a value.
    start = self.position
    number = _NUMBER.match(self.text, start)
    bare = _BARE.match(self.text, start)
    if not bare:
      raise _Malformed
    if number and number.end() == bare.end():
      value: Any = _number(number.group())
    else:
      # Words without quotes run to the end of the line or the next comma.
      bare = re.compile(r'[^\n,，{}\[\]]+').match(self.text, start)
      words = bare.group().strip()
      value = _WORDS.get(words, words)
    self.position = bare.end()
    if self.position >= len(self.text):
      # "-1" at the end of the text may have been going to be "-10".
      self.is_cut = True
      return None, False
    return value, True

  def _array(self, depth: int) -> list[Any]:
    if depth > _MAX_DEPTH:
      raise _Malformed
    self.position += 1
    result = []
    while not self.is_cut:
      char = self._peek()
      if char and char in ',，':
        self.position += 1
      elif char == ']':
        self.position += 1
        break
      elif char == '}':
        break  # The bracket was forgotten.
      elif char == '':
        self.is_cut = True
      else:
        value, is_whole = self._value(depth, _AFTER_ITEM)
        if is_whole:
          result.append(value)
    return result

  def _string(self, after: re.Pattern) -> str:
    """Read a quoted text; a quote that nothing fitting follows belongs to the text."""
    text = self.text
    closers = _CLOSERS[text[self.position]]
    stop = re.compile(f'[{closers}\\\\]')
    pieces = []
    position = self.position + 1
    while True:
      match = stop.search(text, position)
      if match is None:
        pieces.append(text[position:])
        self.position = len(text)
        self.is_cut = True
        break
      pieces.append(text[position : match.start()])
      position = match.end()
      if match.group() != '\\':
        if after.match(text, position):
          self.position = position
          break
        pieces.append(match.group())
        continue
      char = text[position : position + 1]
      code = re.compile(r'u([0-9a-fA-F]{4})').match(text, position)
      if code:
        pieces.append(chr(int(code.group(1), 16)))
        position = code.end()
      else:
        # `\'`, `` \` `` and other wrong escapes stand for the character itself.
        pieces.append(_ESCAPES.get(char, char))
        position += 1
    # Joins the two halves of an escaped surrogate pair.
    return ''.join(pieces).encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def normalise_keys(value: Mapping[str, Any]) -> dict[str, Any]:
  """Keys in lower case with underscores: 'Anger-Delta ' becomes 'anger_delta'."""
  return {_usual_key(key) if len(key) <= _USUAL_CHARS else _normal_key(key): item for key, item in value.items()}


def _normal_key(key: str) -> str:
  return re.sub(r'[\s-]+', '_', key.strip().lower())


_USUAL_CHARS = 40  # A model repeats the names that it was told; endless ones must not pile up.
_usual_key = functools.lru_cache(maxsize=1 << 10)(_normal_key)
