"""Ask a chat model to play the user: episode and reply in, a parsed answer out."""

import concurrent.futures
import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from eijax.chat.client import ChatClient
from eijax.chat.errors import ChatError, Refused
from eijax.episodes.state import Episode, Reply, SimulatorAnswer
from eijax.errors import SimulatorError
from eijax.seeds import derive_seed
from eijax.simulator import answer_format, prompts
from eijax.simulator.answers import AnswerError, parse_answer

Messages = list[dict[str, str]]

_CORRECTION = {
    'en': (
        'That answer could not be used: {reason}. Answer the same line again with one JSON object and '
        'nothing else: the keys, the types and the order that the instructions give.'
    ),
    'zh': '上面的回答无法使用：{reason}。请针对同一句话重新回答，只输出一个 JSON 对象，键名、类型和顺序都按说明来。',
}
# Enough for the model to see its mistake; an endless answer would only fill the context.
_MAX_QUOTED_CHARS = 2000


class SimulatorFailure(SimulatorError):
  """No usable answer for one turn: it ends that talk, and no other.

  kind: type of the endpoint's error, or 'Unreadable'; for counting.
  """

  def __init__(self, message: str, kind: str = 'Unreadable'):
    super().__init__(message)
    self.kind = kind


class SimulatorClient:
  """Plays the user through a chat endpoint, many talks at a time. Thread-safe.

  Args:
    chat: where the requests go; its worker threads do the waiting and the parsing.
    temperature: 0.7 in the paper.
    max_tokens: of one answer, the private reflection included.
    max_attempts: answers asked for until one can be read (paper: 3 in evaluation, 8 in
      training); network failures are retried by `chat` besides.
    render: messages for a talk and the policy's new line; by default this project's own.
    extra_body: further fields of every request.
    response_format: JSON schema of the answer, used as far as the endpoint takes it; None for none.
  """

  def __init__(
      self,
      chat: ChatClient,
      *,
      temperature: float = 0.7,
      max_tokens: int = 1024,
      max_attempts: int = 3,
      render: Callable[[Episode, Reply], Messages] = prompts.render,
      extra_body: Mapping[str, Any] | None = None,
      response_format: Mapping[str, Any] | None = answer_format.RESPONSE_FORMAT,
  ):
    if max_attempts < 1:
      raise ValueError(f'max_attempts={max_attempts} must be >= 1; the paper uses 3')
    self._chat = chat
    self._temperature = temperature
    self._max_tokens = max_tokens
    self._max_attempts = max_attempts
    self._render = render
    self._extra_body = extra_body
    self._response_format = response_format
    self._lock = threading.Lock()
    self._reset()

  def submit(self, episode: Episode, reply: Reply) -> concurrent.futures.Future:
    """Ask for the user's reaction to `reply`; returns a Future of SimulatorAnswer.

    The future raises SimulatorFailure where no usable answer came.
    """
    return self._chat.pool.submit(self._answer, episode, reply)

  def check(self) -> None:
    """Probe every endpoint before a run; raises SimulatorError with URL and remedy."""
    try:
      self._chat.check()
    except ChatError as error:
      raise SimulatorError(f'the simulator ({self._chat.model}) cannot serve: {error}') from None

  def stats(self, reset: bool = False) -> dict[str, float]:
    """What happened since the last reset.

    Returns:
      requests (answers asked for), retries (after network failures), parse_retries
      (after unreadable answers), failures (turns given up), latency_secs_mean and
      latency_secs_p95 of the requests that succeeded (0 where there are none).
    """
    with self._lock:
      result = dict(self._counts)
      latencies = self._latencies or [0.0]
      if reset:
        self._reset()
    # Neither depends on the order, so that a replay gives the same.
    result['latency_secs_mean'] = math.fsum(latencies) / len(latencies)
    result['latency_secs_p95'] = float(np.percentile(latencies, 95))
    return result

  def _reset(self) -> None:
    self._counts = {'requests': 0, 'retries': 0, 'parse_retries': 0, 'failures': 0}
    self._latencies: list[float] = []

  def _count(self, latency_secs: float | None = None, **amounts: int) -> None:
    with self._lock:
      for name, amount in amounts.items():
        self._counts[name] += amount
      if latency_secs is not None:
        self._latencies.append(latency_secs)

  def _answer(self, episode: Episode, reply: Reply) -> SimulatorAnswer:
    first = self._render(episode, reply)
    messages = first
    round_number = len(episode.turns) + 1
    reason = ''
    for attempt in range(self._max_attempts):
      is_last = attempt + 1 == self._max_attempts
      # Another seed for another attempt: the same one would give the same bad answer.
      seed = derive_seed('simulator', episode.seed, round_number, attempt)
      try:
        result = self._chat.complete(
            messages, temperature=self._temperature, max_tokens=self._max_tokens, seed=seed,
            # Some endpoints write worse when held to a schema than left alone.
            response_format=None if is_last and attempt else self._response_format,
            extra_body=self._extra_body,
        )
      except ChatError as error:
        can_pass = isinstance(error, Refused) and not is_last
        self._count(requests=1, retries=error.num_retries, failures=0 if can_pass else 1)
        if can_pass:
          continue
        raise SimulatorFailure(
            f'the simulator did not answer in round {round_number}: {error}', error.kind
        ) from None
      self._count(result.latency_secs, requests=1, retries=result.retries, parse_retries=min(attempt, 1))
      try:
        return parse_answer(result.text)
      except AnswerError as error:
        reason = str(error)
        if result.finish_reason == 'length':
          reason += '; it met the token limit, so keep the reflection shorter'
        # Always after the first request: the mistakes of earlier attempts do not pile up.
        messages = first + self._correction(result.text, reason, episode.scenario.language)
    self._count(failures=1)
    raise SimulatorFailure(
        f'no answer of the simulator could be read in round {round_number}, {self._max_attempts} tried: {reason}; '
        'use a stronger simulator model or raise its max_tokens'
    )

  @staticmethod
  def _correction(text: str, reason: str, language: str) -> Messages:
    return [
        # Some endpoints refuse an empty message.
        {'role': 'assistant', 'content': text.strip()[:_MAX_QUOTED_CHARS] or '...'},
        {'role': 'user', 'content': _CORRECTION[language].format(reason=reason)},
    ]
