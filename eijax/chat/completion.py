"""Read the body of a chat completion, in the shapes that providers really send."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Completion:
  """One answer.

  text: the content; where that is empty, the reasoning (some providers send all text
    there), and then `from_reasoning` is true. A model under test may have meant it as
    a thought: callers that show text to others must look.
  reasoning: text of the separate reasoning channel, '' where there is none.
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


def decode(body: bytes) -> Any:
  """Decode a JSON body; raises UnreadableBody with the beginning of what came instead."""
  try:
    return json.loads(body)
  except (ValueError, RecursionError):
    start = body[:80].decode('utf-8', 'replace').strip()
    kind = 'an HTML page' if start[:1] == '<' else 'no JSON'
    raise UnreadableBody(f'the body is {kind}: {start!r}') from None


def error_message(body: bytes) -> str:
  """The provider's own words in an error body, one line, at most 300 characters."""
  try:
    value = json.loads(body)
  except (ValueError, RecursionError):
    text = body[:300].decode('utf-8', 'replace')
    # Proxies answer with whole HTML pages; the status says as much.
    value = '' if text.lstrip().startswith('<') else text
  for name in ('error', 'message', 'detail', 'msg'):
    if isinstance(value, dict) and name in value:
      value = value[name]
  if not isinstance(value, str):
    value = json.dumps(value, ensure_ascii=False)
  return ' '.join(value.split())[:300]


def error_code(body: bytes) -> str:
  """The machine-readable code or type of an error body, '' where there is none."""
  try:
    error = json.loads(body)['error']
    return f"{error.get('code') or ''} {error.get('type') or ''}".strip()
  except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
    return ''


def _content_text(content: Any) -> str:
  """Text of a content that is a string, a list of parts, or absent."""
  if isinstance(content, str):
    return content
  if isinstance(content, Mapping):
    content = [content]
  if not isinstance(content, list):
    return ''
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


def read_completion(body: bytes) -> Completion:
  """Read a 200 body.

  Raises:
    UnreadableBody: it holds no message.
    ReportedError: it holds an error object instead.
  """
  value = decode(body)
  if not isinstance(value, dict):
    raise UnreadableBody(f'the body is a JSON {type(value).__name__}, not an object')
  choices = value.get('choices')
  if not choices and value.get('error'):
    error = value['error']
    status = error.get('code') if isinstance(error, dict) else 0
    raise ReportedError(status if isinstance(status, int) else 0, error_message(body))
  if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
    raise UnreadableBody('the body has no choices')
  choice = choices[0]
  message = choice.get('message')
  if isinstance(message, dict):
    content = _content_text(message.get('content'))
    reasoning = _content_text(message.get('reasoning_content')) or _content_text(message.get('reasoning'))
  elif isinstance(choice.get('text'), str):
    content, reasoning = choice['text'], ''
  else:
    raise UnreadableBody('the first choice has no message')
  from_reasoning = not content.strip() and bool(reasoning.strip())
  finish_reason = choice.get('finish_reason')
  usage = value.get('usage')
  return Completion(
      text=reasoning if from_reasoning else content,
      reasoning=reasoning,
      from_reasoning=from_reasoning,
      finish_reason=finish_reason if isinstance(finish_reason, str) else '',
      usage=usage if isinstance(usage, dict) else {},
  )
