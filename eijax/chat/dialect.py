"""What an endpoint takes of the OpenAI request, learned from its refusals.

Providers differ in the name of the token limit, in the parameters that a model takes, and in
the forms of `response_format`. The client starts with the common form and says less as it is told.
"""

import dataclasses
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.chat.context import read_room
from eijax.chat.routes import Route

# From the best to none at all.
FORMATS = ('json_schema', 'json_object', '')
_LIMITS = ('max_tokens', 'max_completion_tokens')
# What may be left out without changing what is asked for, though not without a trace.
_OPTIONAL = ('temperature', 'seed')
_NOT_TAKEN = re.compile(
    r'unsupported|not (?:currently )?support|(?:does|do)(?: not|n\'t) (?:currently )?(?:support|accept|allow)|isn\'t supported|unrecogni[sz]ed|unknown'
    r'|unexpected|extra_forbidden|extra (?:inputs|fields)|not (?:permitted|allowed|available|accepted|implemented)'
    r'|only the default|deprecated|cannot be (?:used|set)|additional propert|不支持|不允许', re.I)
_FORMAT_WORDS = re.compile(
    r'response_format|json_schema|json_object|json mode|structured output|guided|grammar|\'messages\' must contain.*json', re.I)


@dataclasses.dataclass(frozen=True)
class Lesson:
  """One thing that an endpoint does not take.

  refused: a field to leave out, or '' . limit: the name of the token limit to use instead, or ''.
  format: the form of response_format to use instead, or None. cap: the most that the token limit
  may be, or None. told: whether the endpoint said so, or it is a guess to be confirmed.
  """

  refused: str = ''
  limit: str = ''
  format: str | None = None
  cap: int | None = None
  told: bool = True


@dataclasses.dataclass(frozen=True)
class Dialect:
  """The form of request that one endpoint takes."""

  limit: str = 'max_tokens'
  refused: frozenset[str] = frozenset()
  format: str = FORMATS[0]
  cap: int | None = None

  def learn(self, lesson: Lesson) -> 'Dialect':
    changes: dict[str, Any] = {}
    if lesson.refused:
      changes['refused'] = self.refused | {lesson.refused}
    if lesson.limit:
      changes['limit'] = lesson.limit
    if lesson.format is not None and FORMATS.index(lesson.format) > FORMATS.index(self.format):
      changes['format'] = lesson.format
    if lesson.cap is not None:
      changes['cap'] = lesson.cap if self.cap is None else min(self.cap, lesson.cap)
    return dataclasses.replace(self, **changes)

  def wire(self, asked: Mapping[str, Any], max_tokens: int | None) -> dict[str, Any]:
    """The request to send. `asked`: in the common form; max_tokens: instead of the one in it."""
    sent = {name: value for name, value in asked.items() if name not in self.refused}
    if 'max_tokens' in asked:
      wanted = sent.pop('max_tokens', asked['max_tokens']) if max_tokens is None else max_tokens
      sent.pop('max_tokens', None)
      if self.limit not in self.refused:
        sent[self.limit] = wanted if self.cap is None else min(wanted, self.cap)
    if 'response_format' in sent:
      sent['response_format'] = _format(sent['response_format'], self.format)
      if sent['response_format'] is None:
        del sent['response_format']
    return sent

  def describe(self) -> tuple[str, ...]:
    """What differs from the common form, for records."""
    said = [f'{name} not sent' for name in sorted(self.refused)]
    if self.limit != 'max_tokens':
      said.append(f'{self.limit} for max_tokens')
    if self.format != FORMATS[0]:
      said.append(f'response_format {self.format or "not sent"}')
    if self.cap is not None:
      said.append(f'max_tokens at most {self.cap}')
    return tuple(said)


def _format(wanted: Mapping[str, Any], taken: str) -> Mapping[str, Any] | None:
  """The response_format in a form that is taken; None for none."""
  kind = wanted.get('type')
  # Forms of one provider's own are either taken or not.
  rank = FORMATS.index(kind) if kind in FORMATS else 1
  if FORMATS.index(taken) <= rank:
    return wanted
  return {'type': 'json_object'} if taken == 'json_object' else None


def limit_of(sent: Mapping[str, Any]) -> int | None:
  """The token limit of a request as sent."""
  value = next((sent[name] for name in reversed(_LIMITS) if name in sent), None)
  return value if isinstance(value, int) else None


def lesson_of(sent: Mapping[str, Any], words: str, param: str) -> Lesson | None:
  """What a refusal (4xx) of a request teaches; None where it is about something else.

  Args:
    sent: the request as it went out.
    words: code and message of the refusal.
    param: the parameter that the endpoint names, or ''.
  """
  if 'response_format' in sent and (param.startswith('response_format') or _FORMAT_WORDS.search(words)):
    return Lesson(format=next_format(sent))
  limit, cap = limit_of(sent), read_room(words).cap
  if limit is not None and cap is not None and 0 < cap < limit:
    return Lesson(cap=cap)
  if not _NOT_TAKEN.search(words):
    return None
  for name in (*_LIMITS[::-1], *_OPTIONAL):
    if name not in sent or not (param == name or re.search(rf'\b{name}\b', words)):
      continue
    if name == 'max_tokens':
      return Lesson(limit='max_completion_tokens')
    return Lesson(refused=name)
  return None


def next_format(sent: Mapping[str, Any]) -> str:
  """The form below the one that was sent."""
  kind = sent['response_format'].get('type')
  return FORMATS[FORMATS.index(kind) + 1] if kind in FORMATS[:2] else ''


class Dialects:
  """What each route takes, as far as is known. Thread-safe."""

  def __init__(self, routes: Sequence[Route]):
    self._lock = threading.Lock()
    self._known = {route: Dialect() for route in routes}
    self._proven: set[Route] = set()

  def of(self, route: Route) -> Dialect:
    with self._lock:
      return self._known[route]

  def is_proven(self, route: Route) -> bool:
    """Whether a request with a response_format has been answered here."""
    with self._lock:
      return route in self._proven

  def confirm(self, route: Route, lessons: Sequence[Lesson], sent: Mapping[str, Any]) -> None:
    """Remember what made a request pass.

    What was only guessed about response_format counts for nothing where others passed with it.
    """
    with self._lock:
      for lesson in lessons:
        if lesson.told or route not in self._proven:
          self._known[route] = self._known[route].learn(lesson)
      if 'response_format' in sent:
        self._proven.add(route)

  def describe(self) -> dict[str, tuple[str, ...]]:
    """URL without secrets -> what its endpoint does not take."""
    with self._lock:
      return {route.display: said for route, known in self._known.items() if (said := known.describe())}
