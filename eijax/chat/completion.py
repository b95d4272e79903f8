"""Read the body of a chat completion, in the shapes that providers really send."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

# Longer numbers are none that a provider means; Python itself refuses beyond 4,300 digits.
_MAX_DIGITS = 18
_FINISH_REASONS = {
    'max_tokens': 'length', 'max_output_tokens': 'length', 'model_length': 'length',
    'end_turn': 'stop', 'eos': 'stop', 'eos_token': 'stop', 'stop_sequence': 'stop',
}
_REFUSING = frozenset((
    'content_filter', 'refusal', 'safety', 'sensitive', 'prohibited_content', 'blocklist', 'recitation', 'spii',
))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
  """One answer.

  text: the content; where that is empty, the reasoning (some providers send all text
    there), and then `from_reasoning` is true. A model under test may have meant it as
    a thought: callers that show text to others must look.
  reasoning: text of the separate reasoning channel, '' where there is none.
  finish_reason: in lower case, 'length' and 'stop' by these names whatever the provider's.
  usage: as given, without what is no finite JSON number.
  """

  text: str
  reasoning: str
  from_reasoning: bool
  finish_reason: str
  usage: Mapping[str, Any]


class UnreadableBody(ValueError):
  """A body that is no chat completion."""


class ReportedError(Exception):
  """An error object inside a 200 answer, as some gateways send. `status` may be 0."""

  def __init__(self, status: int, message: str):
    super().__init__(message)
    self.status = status


class Refusal(Exception):
  """The model or a filter declined; the text is what it said, or why the answer ended."""


def _finite(lexeme: str) -> float | None:
  value = float(lexeme)
  return value if math.isfinite(value) else None


def _whole(lexeme: str) -> int | None:
  return int(lexeme) if len(lexeme) <= _MAX_DIGITS else None


# NaN, 1e999 and a number of 5,000 digits become null: they must not spoil the text beside them.
_DECODER = json.JSONDecoder(
    strict=False, parse_float=_finite, parse_int=_whole, parse_constant=lambda name: None)


_LONG_NUMBER = re.compile(rb'\d{19}')  # Beyond 64 bits orjson makes a float of a whole number.


def _unicode(body: bytes, content_type: str) -> str:
  """Text of a body: UTF-8 or another UTF by its first bytes, else as the header says."""
  named = re.search(r'charset\s*=\s*["\']?([\w.:-]+)', content_type, re.I)
  for charset in (json.detect_encoding(body), named.group(1) if named else ''):
    try:
      return body.decode(charset) if charset else body.decode('utf-8', 'replace')
    except (UnicodeDecodeError, LookupError):
      continue  # Wrongly named, or no charset at all.
  return body.decode('utf-8', 'replace')


def decode(body: bytes, content_type: str = '') -> Any:
  """Decode a JSON body; raises UnreadableBody with the beginning of what came instead."""
  if not _LONG_NUMBER.search(body):
    try:
      return orjson.loads(body)  # Many times as fast, and strict: what it takes, all others read alike.
    except ValueError:
      pass
  text = _unicode(body, content_type).removeprefix('\ufeff').strip()
  try:
    return _DECODER.decode(text)
  except (ValueError, RecursionError):
    start = text[:80]
    if start[:1] == '<':
      kind = 'an HTML page'
    elif start[:1] in ('{', '['):
      kind = 'broken JSON'
    else:
      kind = 'no JSON'
    raise UnreadableBody(f'the body is {kind}: {start!r}') from None


def error_message(body: bytes) -> str:
  """The provider's own words in an error body, one line, at most 300 characters."""
  try:
    value = decode(body)
  except UnreadableBody:
    text = body[:300].decode('utf-8', 'replace')
    # Proxies answer with whole HTML pages; the status says as much.
    value = '' if text.lstrip().startswith('<') else text
  for name in ('error', 'message', 'detail', 'msg'):
    if isinstance(value, dict) and name in value:
      value = value[name]
  if not isinstance(value, str):
    try:
      value = json.dumps(value, ensure_ascii=False)
    except RecursionError:
      value = ''
  return ' '.join(value.split())[:300]


def error_fields(body: bytes) -> tuple[str, str]:
  """The machine-readable (code and type, parameter) of an error body; '' where there is none."""
  try:
    error = decode(body)['error']
    return f"{error.get('code') or ''} {error.get('type') or ''}".strip(), str(error.get('param') or '')
  except (UnreadableBody, TypeError, KeyError, AttributeError):
    return '', ''


def _content_text(content: Any) -> str:
  """Text of a content that is a string, a list of parts, or absent.

  Raises:
    UnreadableBody: it is none of these.
  """
  if isinstance(content, str):
    return content
  if content is None:
    return ''
  if isinstance(content, Mapping):
    content = [content]
  if not isinstance(content, list):
    raise UnreadableBody(f'the content is a JSON {type(content).__name__}, not a text')
  texts = []
  for part in content:
    if isinstance(part, str):
      texts.append(part)
    elif isinstance(part, Mapping) and part.get('type', 'text') in ('text', 'output_text'):
      text = part.get('text')
      if isinstance(text, Mapping):  # {"text": {"value": "..."}}
        text = text.get('value')
      if isinstance(text, str):
        texts.append(text)
  return ''.join(texts)


def _refusal(message: Mapping[str, Any]) -> str:
  """What a model says that declines: a field of its own, or a part of the content."""
  if isinstance(message.get('refusal'), str):
    return message['refusal'].strip()
  content = message.get('content')
  parts = content if isinstance(content, list) else []
  return ' '.join(
      part['refusal'] for part in parts if isinstance(part, Mapping) and isinstance(part.get('refusal'), str)
  ).strip()


def _raise_reported(error: Any, body: bytes) -> None:
  """Raise ReportedError with the status that an error object holds."""
  status = error.get('code') or error.get('status') if isinstance(error, Mapping) else 0
  if isinstance(status, str) and status.isdecimal():
    status = int(status[:4])
  is_status = isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600
  raise ReportedError(status if is_status else 0, error_message(body))


def read_completion(body: bytes, content_type: str = '') -> Completion:
  """Read a 200 body.

  Raises:
    UnreadableBody: it holds no message.
    ReportedError: it holds an error object instead.
    Refusal: the model or a filter declined to answer.
  """
  value = decode(body, content_type)
  if not isinstance(value, dict):
    raise UnreadableBody(f'the body is a JSON {type(value).__name__}, not an object')
  choices = value.get('choices')
  if not choices and value.get('error'):
    _raise_reported(value['error'], body)
  if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
    said = error_message(body) if value.get('message') or value.get('detail') or value.get('msg') else ''
    raise UnreadableBody('the body has no choices' + (f': {said}' if said else ''))
  choice = choices[0]
  if choice.get('error'):
    _raise_reported(choice['error'], json.dumps({'error': choice['error']}).encode())
  return _read_choice(choice, value.get('usage'))


def _read_choice(choice: Mapping[str, Any], usage: Any) -> Completion:
  message = choice.get('message')
  if isinstance(message, dict):
    content = _content_text(message.get('content'))
    reasoning = _content_text(message.get('reasoning_content')) or _content_text(message.get('reasoning'))
  elif isinstance(choice.get('text'), str):
    message, content, reasoning = {}, choice['text'], ''
  else:
    raise UnreadableBody('the first choice has no message')
  finish_reason = choice.get('finish_reason')
  finish_reason = finish_reason.lower() if isinstance(finish_reason, str) else ''
  refusal = _refusal(message)
  # What a filter left of an answer is not what the model says.
  if finish_reason in _REFUSING or (refusal and not content.strip()):
    raise Refusal(' '.join(refusal.split())[:200] or f'finish_reason {finish_reason}')
  from_reasoning = not content.strip() and bool(reasoning.strip())
  return Completion(
      text=reasoning if from_reasoning else content,
      reasoning=reasoning,
      from_reasoning=from_reasoning,
      finish_reason=_FINISH_REASONS.get(finish_reason, finish_reason),
      usage=usage if isinstance(usage, dict) else {},
  )
