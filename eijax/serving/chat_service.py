"""Chat requests to a sampling engine: prompts, admission, and the text as it comes."""

from collections.abc import Callable, Iterator
import dataclasses
import queue
import secrets
import threading
import time
from typing import Any

import numpy as np

from eijax.errors import DataError, EijaxError
from eijax.sampling.config import SamplingConfig
from eijax.sampling.engine import EngineClosedError, SamplingEngine
from eijax.sampling.samples import EngineRequest
from eijax.seeds import derive_seed
from eijax.serving.api_errors import ApiError
from eijax.serving.chat_request import ChatRequest
from eijax.serving.spoken_stream import Piece, SpokenStream
from eijax.text.ports import ChatFormat, Tokenizer

# How often a waiting answer looks whether its client is still there.
_LOOK_SECS = 0.25
_RETRY_AFTER_SECS = 1


class ClientLeft(Exception):
  """Nobody waits for this answer any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
  """The policy behind a service. name: what clients call it. sampling: where a request leaves it open."""

  name: str
  tokenizer: Tokenizer
  chat_format: ChatFormat
  sampling: SamplingConfig
  thinking: bool


class ChatService:
  """Admits requests to the engine, at most `max_open` responses at a time. For any thread."""

  def __init__(self, served: Served, engine: SamplingEngine, *, max_open: int):
    self.served, self.max_open = served, max_open
    self._engine = engine
    self._changed = threading.Condition()
    self._num_open = 0
    self._draining = False

  @property
  def draining(self) -> bool:
    return self._draining

  @property
  def num_open(self) -> int:
    """Responses that run or wait."""
    return self._num_open

  def begin(self, request: ChatRequest) -> 'Answer':
    """Start an answer; use it as a context.

    Raises:
      ApiError: 404 unknown model, 400 prompt too long or refused by the template, 429 too many requests, 503 closing.
    """
    if request.model != self.served.name:
      raise ApiError(404, f'model {request.model[:200]!r} does not exist; use {self.served.name!r}', param='model', code='model_not_found')
    prompt = np.array(self._prompt(request), np.int32)
    if len(prompt) >= self._engine.max_tokens:
      raise ApiError(
          400, f'the messages take {len(prompt)} tokens, but the context length is {self._engine.max_tokens} tokens, '
          'the answer included; shorten them', param='messages', code='context_length_exceeded')
    self._admit(request.n)
    try:
      return Answer(request, prompt, self.served, self._engine, self._leave)
    except EngineClosedError:
      self._leave(request.n)
      raise _closing() from None
    except BaseException:
      self._leave(request.n)
      raise

  def drain(self, secs: float) -> bool:
    """Admit nothing more, and wait for the open answers; whether they ended in time."""
    with self._changed:
      self._draining = True
      return self._changed.wait_for(lambda: not self._num_open, timeout=secs)

  def _prompt(self, request: ChatRequest) -> list[int]:
    try:
      return self.served.chat_format.prompt([{'role': role, 'content': text} for role, text in request.messages])
    except DataError:
      roles = ', '.join(role for role, _ in request.messages[:20])
      raise ApiError(400, f"the model's chat template refuses messages of roles {roles}; let user and assistant take turns",
                     param='messages') from None

  def _admit(self, n: int) -> None:
    with self._changed:
      if self._draining:
        raise _closing()
      if self._num_open + n > self.max_open:
        raise ApiError(
            429, f'{self._num_open} answers run or wait, and {self.max_open} are the most; come back later',
            code='too_many_requests', retry_after_secs=_RETRY_AFTER_SECS)
      self._num_open += n

  def _leave(self, n: int) -> None:
    with self._changed:
      self._num_open -= n
      self._changed.notify_all()


def _closing() -> ApiError:
  return ApiError(503, 'the server is shutting down; use another one', code='shutting_down', retry_after_secs=_RETRY_AFTER_SECS)


def choice_seed(seed: int | None, number: int) -> int:
  """Seed of choice `number` (from 0); a seed that the engine takes as it is serves the first one unchanged."""
  if seed is None:
    return secrets.randbelow(2**31)
  if number == 0 and 0 <= seed < 2**31:
    return seed
  return derive_seed('choice', seed, number)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Delta:
  """News of choice `index`; with a finish_reason, the last."""

  index: int
  piece: Piece
  finish_reason: str | None = None


class Answer:
  """The n responses to one request. Leaving the context cancels what still runs and gives its places back."""

  def __init__(
      self, request: ChatRequest, prompt: np.ndarray, served: Served, engine: SamplingEngine, leave: Callable[[int], None],
  ):
    self.request, self.prompt_tokens = request, len(prompt)
    self._leave = leave
    self._events: queue.SimpleQueue = queue.SimpleQueue()
    self._streams = [SpokenStream(served.tokenizer, served.chat_format, request.stop) for _ in range(request.n)]
    self._futures = engine.submit([
        EngineRequest(
            prompt_ids=prompt, seed=choice_seed(request.seed, number), sampling=request.sampling,
            on_tokens=lambda ids, log_probs, number=number: self._events.put((number, ids, log_probs)))
        for number in range(request.n)])
    for number, future in enumerate(self._futures):
      future.add_done_callback(lambda done, number=number: self._events.put((number, done, None)))

  @property
  def completion_tokens(self) -> int:
    return sum(stream.num_tokens for stream in self._streams)

  def __enter__(self) -> 'Answer':
    return self

  def __exit__(self, *exc_info) -> None:
    for future in self._futures:
      future.cancel()
    self._leave(self.request.n)

  def deltas(self, has_left: Callable[[], bool]) -> Iterator[Delta]:
    """News of all choices, until each has finished.

    Raises:
      ClientLeft: has_left said so.
      ApiError: 500 or 503, the engine failed or was closed.
    """
    unfinished = set(range(self.request.n))
    look_at = time.monotonic() + _LOOK_SECS
    while unfinished:
      try:
        event = self._events.get(timeout=_LOOK_SECS)
      except queue.Empty:
        event = None
      if time.monotonic() >= look_at:
        if has_left():
          raise ClientLeft
        look_at = time.monotonic() + _LOOK_SECS
      if event is None or event[0] not in unfinished:
        continue
      delta = self._delta(*event)
      if delta.finish_reason is not None:
        unfinished.discard(delta.index)
      yield delta

  def _delta(self, number: int, ids_or_future: Any, log_probs: np.ndarray | None) -> Delta:
    stream = self._streams[number]
    if log_probs is not None:
      piece = stream.add(ids_or_future, log_probs)
      if not stream.stopped:
        return Delta(index=number, piece=piece)
      self._futures[number].cancel()
      return Delta(index=number, piece=piece, finish_reason='stop')
    try:
      sample = ids_or_future.result()
    except EngineClosedError:
      raise _closing() from None
    except EijaxError as error:
      raise ApiError(500, f'{error}; try again, and look at the server if it goes on', code='engine_failed') from None
    piece = stream.end()
    return Delta(index=number, piece=piece, finish_reason='length' if sample.truncated and not stream.stopped else 'stop')
