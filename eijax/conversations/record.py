"""A conversation to learn from: messages of a chat, checked when they are read."""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import hashlib
import json
import re
from typing import Any, NoReturn

from eijax.errors import DataError
from eijax.text.pieces import THINK_CLOSE, THINK_OPEN

ROLES = ('system', 'user', 'assistant')
_THOUGHT = re.compile(rf'\s*{THINK_OPEN}(.*?){THINK_CLOSE}', re.DOTALL)
_MAX_SHOWN = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
  """role: one of ROLES. content: as written."""

  role: str
  content: str

  @property
  def words(self) -> str:
    """What was said aloud: the content without a thought at its head, and without whitespace at its ends."""
    return _THOUGHT.sub('', self.content, count=1).strip() if self.has_thought else self.content.strip()

  @property
  def has_thought(self) -> bool:
    """Whether an assistant's content begins with <think>...</think>."""
    return self.role == 'assistant' and _THOUGHT.match(self.content) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
  """At most one system message, then user and assistant in turn. where: file and line, for messages."""

  messages: tuple[Message, ...]
  where: str = dataclasses.field(compare=False)

  @property
  def num_replies(self) -> int:
    return sum(message.role == 'assistant' for message in self.messages)

  @functools.cached_property
  def digest(self) -> str:
    """Of roles and contents: equal for copies."""
    plain = json.dumps([[message.role, message.content] for message in self.messages])
    return hashlib.sha256(plain.encode()).hexdigest()


def parse_conversation(obj: Any, where: str) -> Conversation:
  """Read {"messages": [{"role", "content"}, ...]}; other keys are ignored.

  The rules: roles are system, user and assistant; a system message is the first, and may be empty, which is none;
  after it user and assistant alternate, and the assistant may open only where there is a system message; there is
  at least one assistant message; no content is empty, and an assistant's holds more than a thought. A last user
  message may stay without an answer.

  Args:
    where: begins the messages of errors, e.g. 'FILE:LINE'.
  Raises:
    DataError: names place, field, value, rule and remedy.
  """
  if not isinstance(obj, Mapping):
    raise DataError(f'{where}: must be a JSON object with `messages`, not {_shown(obj)}; write {{"messages": [...]}}')
  listed = obj.get('messages')
  if not isinstance(listed, list) or not listed:
    _fail(where, 'messages', 'missing' if 'messages' not in obj else _shown(listed), 'must be a list of messages',
          'write [{"role": "user", "content": "..."}, ...]')
  messages = [_message(item, f'messages[{number}]', where) for number, item in enumerate(listed)]
  if messages[0].role == 'system' and not messages[0].content.strip():
    messages = messages[1:]
    offset = 1
  else:
    offset = 0
  _check_order(messages, offset, where)
  return Conversation(messages=tuple(messages), where=where)


def _message(item: Any, field: str, where: str) -> Message:
  if not isinstance(item, Mapping):
    _fail(where, field, _shown(item), 'must be an object with `role` and `content`', 'write {"role": "user", "content": "..."}')
  role, content = item.get('role'), item.get('content')
  if role not in ROLES:
    _fail(where, f'{field}.role', _shown(role), f'must be one of {", ".join(ROLES)}', 'mend it, or leave the conversation out')
  if not isinstance(content, str):
    _fail(where, f'{field}.content', _shown(content), 'must be a text', 'write it as a JSON string')
  message = Message(role=role, content=content)
  if role != 'system' and not message.words:
    rule = 'must hold more than a thought' if message.has_thought else f'must not be empty ({role})'
    _fail(where, f'{field}.content', _shown(content), rule, 'fill it, or leave the message out')
  return message


def _check_order(messages: Sequence[Message], offset: int, where: str) -> None:
  for number, message in enumerate(messages):
    before = messages[number - 1].role if number else None
    if message.role == 'system':
      allowed = number == 0
      rule = 'the system message must be the first and only one'
    elif before in (None, 'system'):
      allowed = message.role == 'user' or before == 'system'
      rule = 'without a system message a user must speak first'
    else:
      allowed = message.role != before
      rule = f'user and assistant must take turns, and messages[{number + offset - 1}] is of {before!r} too'
    if not allowed:
      _fail(where, f'messages[{number + offset}].role', repr(message.role), rule, 'join or reorder the messages')
  if not any(message.role == 'assistant' for message in messages):
    _fail(where, 'messages', f'{len(messages)} of ' + ' and '.join(dict.fromkeys(m.role for m in messages)),
          'needs at least one assistant message, or there is nothing to learn', 'add one, or leave the conversation out')


def _shown(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= _MAX_SHOWN else f'{text[:_MAX_SHOWN]}...'


def _fail(where: str, field: str, value: str, rule: str, remedy: str) -> NoReturn:
  raise DataError(f'{where}: field `{field}` = {value} breaks the rule: {rule}; {remedy}')
