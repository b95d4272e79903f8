"""Read the simulator's answer: one JSON object, in all the ways that models write it.

Source: arXiv 2606.15532, section 2. Clipping is left to `eijax.episodes.protocol`.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from eijax.chat.tolerant_json import find_objects, normalise_keys
from eijax.episodes.state import SimulatorAnswer

_KEYS = frozenset(('reply', 'anger_delta', 'trust_delta', 'anger', 'trust'))
_STOP_WORDS = frozenset(('no', 'n', 'false', 'stop', 'end', '否', '不', '停止', '结束'))
_SIGNS = str.maketrans({'−': '-', '–': '-', '＋': '+', '－': '-'})
# Beyond every clip, and far from what a JSON reader elsewhere could not hold.
_LIMIT = 1000
# Far more than anybody says in one breath: it would fill the prompts of all later rounds.
_MAX_REPLY_CHARS = 4000
_MAX_REFLECTION_CHARS = 8000
_CONTROL = re.compile(r'[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]')


class AnswerError(ValueError):
  """An answer that cannot be used; the message says why, for the model and the log."""


def parse_answer(text: str) -> SimulatorAnswer:
  """Read the last real object of a text outside its thoughts.

  Raises:
    AnswerError: no object, no reply, or neither deltas nor levels.
  """
  return _read(_choose(text))


def _choose(text: str) -> tuple[dict[str, Any], bool]:
  """The object that counts, and whether it was cut off."""
  objects = [
      (normalise_keys(found.value), found.is_cut, found.in_thought) for found in find_objects(text)
  ]
  objects = [(_unwrap(value), is_cut, thought) for value, is_cut, thought in objects]
  real = [item for item in objects if _KEYS & item[0].keys()]
  if not real:
    raise AnswerError('no JSON object with reply, anger_delta and trust_delta was found')
  # A draft inside a thought counts only where nothing stands outside of it, as when the
  # model forgot to end its thought; a cut object only where there is no whole one.
  real = [item for item in real if not item[2]] or real
  whole = [item for item in real if not item[1]] or real
  return whole[-1][:2]


def _unwrap(value: dict[str, Any]) -> dict[str, Any]:
  """Take {"answer": {...}} for {...}."""
  if not _KEYS & value.keys() and len(value) == 1:
    inner = next(iter(value.values()))
    if isinstance(inner, Mapping):
      return normalise_keys(inner)
  return value


def _read(chosen: tuple[dict[str, Any], bool]) -> SimulatorAnswer:
  value, is_cut = chosen
  anger_delta, trust_delta = (_integer(value, name) for name in ('anger_delta', 'trust_delta'))
  anger = trust = None
  if anger_delta is None and trust_delta is None:
    anger, trust = (_integer(value, name) for name in ('anger', 'trust'))
    if anger is None and trust is None:
      raise AnswerError('neither anger_delta and trust_delta nor anger and trust were given')
    missing = anger is None or trust is None
  else:
    missing = anger_delta is None or trust_delta is None
  if missing and is_cut:
    raise AnswerError('the object was cut off before both changes were given; keep the reflection shorter')
  return SimulatorAnswer(
      reply=_reply(value.get('reply')),
      anger_delta=anger_delta,
      trust_delta=trust_delta,
      anger=anger,
      trust=trust,
      stop=_is_stop(value.get('continue')),
      stop_reason=_text(value.get('stop_reason')) if _is_stop(value.get('continue')) else '',
      reflection=_reflection(value.get('reflection')),
  )


def _integer(value: Mapping[str, Any], name: str) -> int | None:
  """An integer, from a float or a numeric text too; None where the key is absent or null."""
  item = value.get(name)
  if item is None:
    return None
  if isinstance(item, str):
    try:
      if '_' in item:  # float() would read "1_0" as 10.
        raise ValueError
      item = float(item.translate(_SIGNS).replace(' ', '').strip('"\'`'))
    except ValueError:
      raise AnswerError(f'{name} must be an integer, not {item[:40]!r}') from None
  if isinstance(item, bool) or not isinstance(item, int | float):
    raise AnswerError(f'{name} must be an integer, not a {type(item).__name__}')
  if not math.isfinite(item):
    raise AnswerError(f'{name} must be a finite integer')
  return max(-_LIMIT, min(_LIMIT, round(item)))


def _clean(text: str) -> str:
  if text.isprintable() and text.isascii():
    return text.strip()
  # Half a surrogate pair cannot be stored or sent on.
  text = text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
  return _CONTROL.sub('', text).strip()


def _text(item: Any) -> str:
  return _clean(item) if isinstance(item, str) else ''


def _reply(item: Any) -> str:
  if isinstance(item, list) and all(isinstance(part, str) for part in item):
    item = '\n'.join(item)
  reply = _text(item)
  if not reply:
    raise AnswerError('reply must be a non-empty text: the words that are spoken')
  if len(reply) > _MAX_REPLY_CHARS:
    raise AnswerError(f'reply has {len(reply)} characters and must have at most {_MAX_REPLY_CHARS}: a few sentences')
  return reply


def _is_stop(item: Any) -> bool:
  if isinstance(item, str):
    return item.strip().strip('.。"\'').lower() in _STOP_WORDS
  return item is False


def _reflection(item: Any) -> object:
  """Text or JSON as given, '' where there is none; what is endless or too deep to write is cut to text."""
  if isinstance(item, str):
    return _clean(item)[:_MAX_REFLECTION_CHARS]
  if not isinstance(item, Mapping | list):
    return ''
  try:
    text = json.dumps(item, ensure_ascii=False)
  except RecursionError:
    return ''
  return item if len(text) <= _MAX_REFLECTION_CHARS and text.count('[') + text.count('{') <= 200 else text[:_MAX_REFLECTION_CHARS]
