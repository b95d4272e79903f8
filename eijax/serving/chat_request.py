"""A chat completion request: JSON to a checked dataclass. What is not served is refused by name, never ignored."""

from collections.abc import Callable, Mapping
import dataclasses
import json
import math
from typing import Any

from eijax.sampling.config import SamplingConfig
from eijax.serving.api_errors import ApiError

MAX_STOP_STRINGS = 4
MAX_STOP_CHARS = 256
# Below it a temperature means the most probable token: logits divided by less would only overflow.
GREEDY_BELOW = 1e-3
_ROLES = {'system': 'system', 'developer': 'system', 'user': 'user', 'assistant': 'assistant'}
# They say nothing about the answer.
_WITHOUT_EFFECT = frozenset((
    'metadata', 'parallel_tool_calls', 'prompt_cache_key', 'safety_identifier', 'service_tier', 'store', 'user'))
# Fields that are known but not served, with the values that ask for nothing.
_NEUTRAL: Mapping[str, tuple] = {
    'frequency_penalty': (0,), 'presence_penalty': (0,), 'repetition_penalty': (1,), 'min_p': (0,), 'logit_bias': ({},),
    'top_logprobs': (0,), 'tools': ([],), 'functions': ([],), 'tool_choice': ('none', 'auto'), 'function_call': ('none', 'auto'),
    'response_format': ({'type': 'text'},), 'modalities': (['text'],),
}
_SERVED = frozenset((
    'model', 'messages', 'n', 'stream', 'stream_options', 'temperature', 'top_p', 'top_k', 'max_tokens',
    'max_completion_tokens', 'seed', 'stop', 'logprobs', 'chat_template_kwargs'))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatRequest:
  """One request. messages: (role, text) pairs. seed: None for one of the server's choice."""

  model: str
  messages: tuple[tuple[str, str], ...]
  n: int
  stream: bool
  include_usage: bool
  sampling: SamplingConfig
  seed: int | None
  stop: tuple[str, ...]
  logprobs: bool


def parse(body: bytes, *, defaults: SamplingConfig, thinking: bool, max_choices: int) -> ChatRequest:
  """Read a request.

  Args:
    defaults: for what the request leaves open.
    thinking: whether the policy thinks; a request may not ask for the contrary.
    max_choices: largest n.
  Raises:
    ApiError: 400, with the field in `param`.
  """
  fields = _Fields(body)
  options = fields.object('stream_options') or {}
  stream = fields.boolean('stream')
  if options and not stream:
    raise _bad('stream_options', 'is only for stream=true; drop it')
  if not isinstance(options.get('include_usage', False), bool):
    raise _bad('stream_options.include_usage', f'is {_shown(options["include_usage"])}, but must be true or false')
  _check_thinking(fields.object('chat_template_kwargs') or {}, thinking)
  return ChatRequest(
      model=fields.text('model'), messages=_messages(fields.get('messages')), n=fields.integer('n', 1, max_choices) or 1,
      stream=stream, include_usage=options.get('include_usage', False), sampling=_sampling(fields, defaults),
      seed=fields.integer('seed', -(2**63), 2**63 - 1), stop=_stop(fields.get('stop')), logprobs=fields.boolean('logprobs'))


class _Fields:
  """The top level of a request; null means left out."""

  def __init__(self, body: bytes):
    try:
      values = json.loads(body)
    except (ValueError, RecursionError):
      raise ApiError(400, 'the body is not valid JSON; send a JSON object', code='invalid_json') from None
    if not isinstance(values, dict):
      raise ApiError(400, f'the body is a JSON {type(values).__name__}, but must be an object', code='invalid_json')
    self._values = {name: value for name, value in values.items() if value is not None}
    for name, value in self._values.items():
      if name in _NEUTRAL:
        if value not in _NEUTRAL[name]:
          raise _bad(name, f'is {_shown(value)}, but is not served; drop it', 'unsupported_parameter')
      elif name not in _SERVED and name not in _WITHOUT_EFFECT:
        raise _bad(name[:80], 'is not a field that is served; drop it', 'unknown_parameter')

  def get(self, name: str) -> Any:
    return self._values.get(name)

  def text(self, name: str) -> str:
    value = self.get(name)
    if not isinstance(value, str):
      raise _bad(name, 'is missing; it must be a string' if value is None else f'is {_shown(value)}, but must be a string')
    return value

  def boolean(self, name: str) -> bool:
    return bool(self._checked(name, bool, lambda value: True, 'must be true or false'))

  def object(self, name: str) -> dict | None:
    return self._checked(name, dict, lambda value: True, 'must be an object')

  def integer(self, name: str, low: int, high: int) -> int | None:
    return self._checked(name, int, lambda value: low <= value <= high, f'must be a whole number in {low}..{high}')

  def number(self, name: str, fits: Callable[[float], bool], rule: str) -> float | None:
    return self._checked(name, (int, float), lambda value: math.isfinite(value) and fits(value), rule)

  def _checked(self, name, kind, fits, rule):
    value = self.get(name)
    # JSON's true is no number, though Python's is.
    sound = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    try:
      sound = value is None or sound and fits(value)
    except OverflowError:  # A whole number beyond any float.
      sound = False
    if not sound:
      raise _bad(name, f'is {_shown(value)}, but {rule}')
    return value


def _bad(param: str, words: str, code: str = 'invalid_value') -> ApiError:
  return ApiError(400, f'{param} {words}', param=param, code=code)


def _shown(value: Any) -> str:
  text = json.dumps(value, ensure_ascii=False)
  return text if len(text) <= 60 else f'{text[:60]}...'


def _check_thinking(kwargs: Mapping[str, Any], thinking: bool) -> None:
  for name, value in kwargs.items():
    where = f'chat_template_kwargs.{name[:80]}'
    if name != 'enable_thinking':
      raise _bad(where, 'is not served; drop it', 'unsupported_parameter')
    if value is not thinking:
      raise _bad(where, f'is {_shown(value)}, but this server runs with thinking {"on" if thinking else "off"}; '
                        'start it with the other --thinking', 'unsupported_parameter')


def _sampling(fields: _Fields, defaults: SamplingConfig) -> SamplingConfig:
  temperature = fields.number('temperature', lambda x: 0 <= x <= 2, 'must be a number in 0..2')
  top_p = fields.number('top_p', lambda x: 0 < x <= 1, 'must be a number above 0 and at most 1')
  top_k = fields.integer('top_k', -1, 2**31 - 1)
  limits = {name: fields.integer(name, 1, 2**31 - 1) for name in ('max_tokens', 'max_completion_tokens')}
  given = {value for value in limits.values() if value is not None}
  if len(given) > 1:
    raise _bad('max_tokens', f'is {limits["max_tokens"]}, but max_completion_tokens is {limits["max_completion_tokens"]}; '
                             'give one of them')
  values = {'temperature': temperature, 'top_p': top_p, 'top_k': top_k and max(top_k, 0), 'max_new_tokens': min(given, default=None)}
  if temperature is not None and temperature < GREEDY_BELOW:
    values |= {'temperature': 1.0, 'top_p': 1.0, 'top_k': 1}
  return dataclasses.replace(defaults, **{name: value for name, value in values.items() if value is not None})


def _stop(value: Any) -> tuple[str, ...]:
  strings = [value] if isinstance(value, str) else [] if value is None else value
  if not isinstance(strings, list) or len(strings) > MAX_STOP_STRINGS or not all(
      isinstance(text, str) and 0 < len(text) <= MAX_STOP_CHARS for text in strings):
    raise _bad('stop', f'is {_shown(value)}, but must be a string of 1 to {MAX_STOP_CHARS} characters or a list of at most '
                       f'{MAX_STOP_STRINGS} of them')
  return tuple(strings)


def _messages(value: Any) -> tuple[tuple[str, str], ...]:
  if not isinstance(value, list) or not value:
    raise _bad('messages', 'is missing; it must be a list of messages' if value is None else
               f'is {_shown(value)}, but must be a list of at least one message')
  return tuple(_message(message, f'messages[{number}]') for number, message in enumerate(value))


def _message(message: Any, where: str) -> tuple[str, str]:
  if not isinstance(message, dict):
    raise _bad(where, f'is {_shown(message)}, but must be an object')
  role = message.get('role')
  if not isinstance(role, str) or role not in _ROLES:
    raise _bad(f'{where}.role', f'is {_shown(role)}, but must be one of {", ".join(_ROLES)}')
  for name in ('tool_calls', 'function_call'):
    if message.get(name):
      raise _bad(f'{where}.{name}', 'is not served; drop it', 'unsupported_parameter')
  content = message.get('content')
  if content is None and role == 'assistant':
    content = ''
  if isinstance(content, list):
    content = ''.join(_part(part, f'{where}.content[{number}]') for number, part in enumerate(content))
  if not isinstance(content, str):
    raise _bad(f'{where}.content', f'is {_shown(content)}, but must be a string or a list of text parts')
  # Half a surrogate pair is no text that could be encoded.
  return _ROLES[role], content.encode('utf-8', 'replace').decode('utf-8')


def _part(part: Any, where: str) -> str:
  if not isinstance(part, dict) or part.get('type') != 'text' or not isinstance(part.get('text'), str):
    raise _bad(where, f'is {_shown(part)}, but must be {{"type": "text", "text": "..."}}: only text is served')
  return part['text']
