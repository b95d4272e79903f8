"""Faults and delays on purpose, so that clients can be tried: all that endpoints really do.

What happens to a request is drawn from the server's seed, the request's content and how often
it came, so that a run with faults is repeatable and a retry comes through.
"""

import dataclasses
import hashlib
import json
import math
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any

LATENCY_SIGMA = 0.5  # Of the log of the added delay.
SILENCE_SECS = 0.3
_MAX_COUNTED = 100_000

# Name -> what a client meets, for --help.
FAULTS = {
  'rate_limited': '429 with Retry-After',
  'rate_limited_bare': '429 without it',
  'server_error': '500 with an error object',
  'overloaded': '503 with an HTML page',
  'silence': f'nothing for {SILENCE_SECS} s, then a closed connection',
  'reset': 'a reset connection',
  'cut_body': 'a connection closed within the body',
  'cut_chunks': 'the same with chunked encoding',
  'broken_body': '200 with broken JSON',
  'html': '200 with an HTML page',
  'error_object': '200 with an error object',
  'no_choices': '200 with empty choices',
  'wrong_types': '200 with fields of wrong types',
  'refusal': '200 with a refusal, once',
  'filtered': '200 with finish_reason content_filter, once',
}
# Models and filters that declined twice mean it, and clients are right not to insist.
_ONCE = frozenset(('refusal', 'filtered'))
# These spoil the simulator's words, and so need another answer, not another try.
ANSWER_FAULTS = {
  'cut_answer': 'an answer cut off by the token limit',
  'nan_answer': 'an answer with NaN and 1e999 for numbers',
  'prose_answer': 'an answer without JSON',
}
# Answers that are sound but for their surroundings: a good client takes them as they are.
ODD_SHAPES = {
  'odd_usage': 'usage with NaN and a number of 5,000 digits',
  'content_parts': 'content as a list of parts',
  'reasoning_channel': 'the answer in reasoning_content, no content',
  'other_charset': 'a body in UTF-16',
}
ALL = {**FAULTS, **ANSWER_FAULTS, **ODD_SHAPES}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
  """What happens to one arrival of a request. fault: a name in ALL or None."""

  delay_secs: float = 0.0
  fault: str | None = None
  cut: float = 0.4  # Where an answer is cut off, as a share of it.


class Faults:
  """Draws a fault or a delay for a request: by its content and how often it came."""

  def __init__(
    self, *, seed: int, latency_secs: float, fault_rate: float, names: Sequence[str] = tuple(ALL)
  ):
    self._seed, self._latency_secs, self._fault_rate = seed, latency_secs, fault_rate
    self._names = tuple(names)
    self._lock = threading.Lock()
    self._attempts: dict[bytes, int] = {}
    self._spoilt: dict[bytes, list[tuple[str, int | None]]] = {}

  def draw(self, body: bytes) -> Drawn:
    """What happens to this arrival of a request."""
    if not self._latency_secs and not self._fault_rate:
      return Drawn()
    digest = hashlib.blake2b(body, digest_size=16).digest()
    with self._lock:
      if len(self._attempts) >= _MAX_COUNTED:
        self._attempts.clear()
      attempt = self._attempts[digest] = self._attempts.get(digest, 0) + 1
    rng = random.Random(f'{self._seed}|{digest.hex()}|{attempt}')
    fault = rng.choice(self._names) if rng.random() < self._fault_rate else None
    if fault in _ONCE and attempt > 1:
      fault = None
    delay = 0.0
    if self._latency_secs:
      mean_log = math.log(self._latency_secs) - LATENCY_SIGMA**2 / 2
      delay = rng.lognormvariate(mean_log, LATENCY_SIGMA)
    return Drawn(delay_secs=delay, fault=fault, cut=rng.uniform(0.2, 0.5))

  def spoil(
    self, drawn: Drawn, text: str, messages: Sequence[Mapping[str, Any]], seed: int | None
  ) -> str:
    """Spoil an answer, and remember which it was.

    A client asks for a spoilt answer again with a correction and another seed. It was our fault and
    not the simulator's, so that the answer must be the one that it missed: see `first_seed`.
    """
    if drawn.fault == 'cut_answer':
      text = text[: int(len(text) * drawn.cut)]
    elif drawn.fault == 'nan_answer':
      text = json.dumps(
        {**json.loads(text), 'anger_delta': math.nan, 'trust_delta': 'infinite'}, ensure_ascii=False
      ).replace('"infinite"', '1e999')
    elif drawn.fault == 'prose_answer':
      text = f'*looks away* {json.loads(text)["reply"]}'
    with self._lock:
      if len(self._spoilt) >= _MAX_COUNTED:
        self._spoilt.clear()
      self._spoilt.setdefault(_moment(messages), []).append((text, seed))
    return text

  def first_seed(self, messages: Sequence[Mapping[str, Any]], seed: int | None) -> tuple[bool, int | None]:
    """(Whether a request quotes a spoilt answer, the seed of the request that it answered)."""
    quoted = next((m.get('content') for m in messages[2:] if m.get('role') == 'assistant'), None)
    if not self._fault_rate or not isinstance(quoted, str) or not quoted.strip():
      return False, seed
    with self._lock:
      for text, first in self._spoilt.get(_moment(messages), ()):
        if text.strip().startswith(quoted.strip()):  # Long ones are quoted in part.
          return True, first
    return False, seed


def _moment(messages: Sequence[Mapping[str, Any]]) -> bytes:
  """What stays the same when a request is made again with a correction."""
  return hashlib.blake2b(json.dumps(messages[:2]).encode(), digest_size=16).digest()


def dress(fault: str | None, completion: dict[str, Any]) -> bytes:
  """The body of a completion, in one of ODD_SHAPES or as it should be."""
  choice = completion['choices'][0]
  if fault == 'content_parts':
    text = choice['message']['content']
    half = len(text) // 2
    parts = [{'type': 'text', 'text': text[:half]}, {'type': 'text', 'text': text[half:]}]
    choice['message']['content'] = parts
  elif fault == 'reasoning_channel':
    choice['message'] |= {'content': '', 'reasoning_content': choice['message']['content']}
  elif fault == 'cut_answer':
    choice['finish_reason'] = 'length'
  elif fault == 'odd_usage':
    completion['usage'] = {'prompt_tokens': math.nan, 'completion_tokens': -1}
    text = json.dumps(completion, ensure_ascii=False)
    return text.replace('"completion_tokens": -1', f'"completion_tokens": {"9" * 5000}').encode()
  text = json.dumps(completion, ensure_ascii=False)
  return text.encode('utf-16') if fault == 'other_charset' else text.encode()
