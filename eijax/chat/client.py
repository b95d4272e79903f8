"""A client for OpenAI-compatible chat completions: many requests in flight, typed failures.

Failures that may pass are retried with exponential back-off and full jitter, on the next URL
or key where there are several; `Retry-After` is honoured. What an endpoint does not take is
left out or put otherwise, and remembered.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from eijax.chat import completion as completion_lib
from eijax.chat import context, errors
from eijax.chat.dialect import Dialects, Lesson, lesson_of, limit_of, next_format
from eijax.chat.outcomes import Judge, Passing
from eijax.chat.recording import ANSWERED, Call, Exchanges, Live
from eijax.chat.routes import Route, make_routes
from eijax.chat.usage import UsageMeter
from eijax.chat.wire import Exchange, Wire, encode

_BASE_DELAY_SECS = 0.5
_MAX_DELAY_SECS = 30.0
# A longer wait than this is better reported than slept through.
_MAX_RETRY_AFTER_SECS = 300.0
# Asking the same again seldom changes a model's mind, though often a filter's.
_MAX_REFUSALS = 2
_MAX_LESSONS = 12
# An answer of fewer tokens is none; the caller may rather shorten the messages.
_LEAST_TOKENS = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatResult:
  """One answer; see `eijax.chat.completion.Completion` for the text fields.

  latency_secs: of the request that succeeded, without earlier tries and waits.
  retries: tries after failures that passed.
  max_tokens: the token limit that was sent, None for none; smaller than the one asked for
    where the endpoint had no room for more.
  """

  text: str
  finish_reason: str
  usage: Mapping[str, Any]
  latency_secs: float
  retries: int
  reasoning: str = ''
  from_reasoning: bool = False
  max_tokens: int | None = None


class ChatClient:
  """Owns the connections and the worker threads. Safe to share between threads.

  Args:
    urls: base URLs, one or several (`http://host:port/v1`).
    model: name that the endpoints know.
    api_keys: none, one or several; with as many keys as URLs they belong together
      pairwise, otherwise every key is used at every URL.
    timeout_secs: longest silence of the server in one request.
    max_retries: tries after the first one.
    concurrency: number of worker threads, and so of requests in flight.
    key_variable: environment variable of the keys, named in remedies.
    deadline_secs: longest time for one try, by default four times timeout_secs.
    meter: counts the tokens of all requests, and may forbid further ones.
    exchanges: a `Recorder` or `Replayer` of `eijax.chat.recording`; None for the network alone.
  """

  def __init__(
      self,
      urls: Sequence[str],
      model: str,
      api_keys: Sequence[str] = (),
      timeout_secs: float = 150.0,
      max_retries: int = 8,
      concurrency: int = 64,
      key_variable: str = 'EIJAX_SIMULATOR_API_KEYS',
      *,
      deadline_secs: float | None = None,
      meter: UsageMeter | None = None,
      exchanges: Exchanges | None = None,
  ):
    deadline_secs = 4 * timeout_secs if deadline_secs is None else deadline_secs
    for name, value, least in (
        ('concurrency', concurrency, 1), ('max_retries', max_retries, 0), ('timeout_secs', timeout_secs, 1e-3),
        ('deadline_secs', deadline_secs, 1e-3),
    ):
      if value < least:
        raise ValueError(f'{name}={value} must be >= {least}; raise it')
    self.model = model
    self.concurrency = concurrency
    self._routes = make_routes(urls, api_keys, key_variable)
    self._keys = tuple(sorted(set(filter(None, api_keys)), key=len, reverse=True))
    self._wire = Wire(self._routes, timeout_secs, deadline_secs)
    self._judge = Judge(model=model, key_variable=key_variable, scrub=self._scrub)
    self._dialects = Dialects(self._routes)
    self._meter = meter
    self._exchanges = Live() if exchanges is None else exchanges
    self._max_retries = max_retries
    self._turn = itertools.count()  # Spreads requests over the routes; next() is atomic.
    self._jitter = random.Random()
    self._closed = threading.Event()
    self.pool = concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix='chat')

  @property
  def display(self) -> str:
    """Model and URLs, for messages and records; no secrets."""
    return f'{self.model} at {", ".join(dict.fromkeys(route.display for route in self._routes))}'

  @property
  def adaptations(self) -> dict[str, tuple[str, ...]]:
    """What was put otherwise or left out because an endpoint does not take it, by URL.

    Belongs into the records of a run: a temperature that was not sent, say, changes it.
    """
    return self._dialects.describe()

  def complete(
      self,
      messages: Sequence[Mapping[str, Any]],
      *,
      temperature: float | None = None,
      max_tokens: int | None = None,
      seed: int | None = None,
      response_format: Mapping[str, Any] | None = None,
      extra_body: Mapping[str, Any] | None = None,
  ) -> ChatResult:
    """Ask for one completion, and wait for it.

    Args:
      response_format: sent in this form, as json_object or not at all, as the endpoint takes it.
      extra_body: further fields of the request (top_p, stop, provider settings).
    Raises:
      ChatError: one of `eijax.chat.errors`, after the retries where they can help.
      BudgetSpent: the meter allows no further request.
      NotRecorded: the recording that is replayed does not hold this request.
    """
    if self._meter is not None:
      self._meter.check()
    fields = {
        'temperature': temperature, 'max_tokens': max_tokens, 'seed': seed, 'response_format': response_format,
    }
    asked = {'model': self.model, 'messages': list(messages)}
    asked |= {name: value for name, value in fields.items() if value is not None}
    asked |= extra_body or {}
    try:
      result = self._answer(asked, self._exchanges.open(asked))
    except errors.ChatError as error:
      if self._meter is not None:
        self._meter.add_failed(error.num_retries)
      raise
    if self._meter is not None:
      self._meter.add(messages, result.text if result.from_reasoning else result.text + result.reasoning,
                      result.usage, result.retries)
    return result

  def _answer(self, asked: dict[str, Any], call: Call) -> ChatResult:
    """Try until there is an answer or no hope."""
    first = next(self._turn)
    lessons: dict[Route, list[Lesson]] = {}
    limit = None  # Instead of max_tokens.
    num_lessons = retries = num_refusals = 0
    while True:
      if self._closed.is_set():
        raise errors.Closed('the chat client was closed while a request was under way')
      route = self._routes[(first + retries) % len(self._routes)]
      sent: dict[str, Any] = {}
      exchange = call.send(lambda: self._send(route, asked, lessons.get(route, ()), limit, sent))
      sent = sent or json.loads(exchange.sent)  # What is replayed was not sent now.
      try:
        answer = self._judge.completion(exchange)
      except Passing as passing:
        num_refusals += isinstance(passing.error, errors.Refused)
        final = self._final(passing, retries, num_refusals, call)
        call.keep(exchange, final.kind if final else None)
        if final:
          raise final from None
        failed = isinstance(passing.error, errors.ServerFailed)
        if failed and retries and 'response_format' in sent and not self._dialects.is_proven(route):
          # Some servers break on a form that they do not know.
          lessons.setdefault(route, []).append(Lesson(format=next_format(sent), told=False))
        self._wait(passing.retry_after_secs, retries, call)
        retries += 1
      except (errors.BadRequest, errors.ContextTooLong) as error:
        num_lessons += 1
        lesson, shorter = self._learn(exchange, sent, error)
        hopeless = num_lessons > _MAX_LESSONS or (lesson is None and shorter is None)
        call.keep(exchange, error.kind if hopeless else None)
        if hopeless:
          error.num_retries = retries
          raise
        if lesson is not None:
          lessons.setdefault(route, []).append(lesson)
        limit = limit if shorter is None else shorter
      except errors.ChatError as error:
        call.keep(exchange, error.kind)
        error.num_retries = retries
        raise
      else:
        call.keep(exchange, ANSWERED)
        self._dialects.confirm(route, lessons.get(route, ()), sent)
        return ChatResult(
            text=answer.text, finish_reason=answer.finish_reason, usage=answer.usage,
            latency_secs=exchange.latency_secs, retries=retries, reasoning=answer.reasoning,
            from_reasoning=answer.from_reasoning, max_tokens=limit_of(sent),
        )

  def _send(
      self, route: Route, asked: dict[str, Any], lessons: Sequence[Lesson], limit: int | None, sent: dict[str, Any]
  ) -> Exchange:
    """Send a request in the form that the endpoint takes, and put that form into `sent`."""
    dialect = self._dialects.of(route)
    for lesson in lessons:
      dialect = dialect.learn(lesson)
    sent.update(dialect.wire(asked, limit))
    return self._wire.send(route, 'POST', '/chat/completions', encode(sent))

  @staticmethod
  def _learn(
      exchange: Exchange, sent: Mapping[str, Any], error: errors.ChatError
  ) -> tuple[Lesson | None, int | None]:
    """What to change after a refusal: (the form of the request, or a smaller token limit)."""
    code, param = completion_lib.error_fields(exchange.body)
    words = f'{code} {completion_lib.error_message(exchange.body)}'
    if isinstance(error, errors.ContextTooLong):
      room = context.read_room(words)
      error.context_tokens, error.prompt_tokens = room.context, room.prompt
      limit = limit_of(sent)
      return None, None if limit is None else context.shrunk(room, limit, least=min(_LEAST_TOKENS, limit))
    lesson = lesson_of(sent, words, param)
    if lesson is None and exchange.status in (400, 422, 501) and 'response_format' in sent:
      # The one part of the request that many servers do not know, and some do not name.
      lesson = Lesson(format=next_format(sent), told=False)
    return lesson, None

  def post(self, path: str, asked: Mapping[str, Any], read: Callable[[Any], Any], *, expected: str) -> Any:
    """Make another request of the same API and wait for it, with this client's connections, keys and retries.

    Neither metered nor recorded.

    Args:
      path: below the base URL, e.g. '/embeddings'.
      asked: body.
      read: makes the value to return of the decoded answer; a KeyError, TypeError, ValueError or AttributeError
        means that it cannot be used, and it is asked for again.
      expected: what the answer should be, in words, for the error.
    Raises:
      ChatError: after the retries where they can help.
    """
    call = Live().open(asked)
    for retries in itertools.count():
      if self._closed.is_set():
        raise errors.Closed('the client was closed while a request was under way')
      route = self._routes[retries % len(self._routes)]
      try:
        exchange = self._wire.send(route, 'POST', path, encode(asked))
        self._judge.check(exchange)
        try:
          return read(completion_lib.decode(exchange.body))
        except (completion_lib.UnreadableBody, KeyError, TypeError, ValueError, AttributeError) as error:
          raise Passing(errors.BadAnswer(self._scrub(
              f'{exchange.url} answered, but not with {expected}: {error!r}; check the model and that the URL ends in /v1'
          ))) from None
      except Passing as passing:
        final = self._final(passing, retries, 0, call)
        if final:
          raise final from None
        self._wait(passing.retry_after_secs, retries, call)

  def submit(self, messages: Sequence[Mapping[str, Any]], **settings) -> concurrent.futures.Future:
    """`complete` in a worker thread; returns a Future of ChatResult."""
    return self.pool.submit(self.complete, messages, **settings)

  def check(self) -> None:
    """Find out, without retries, whether every URL answers, takes its key and has the model.

    Asks for the list of models; where there is none, or the model is not in it, asks for
    a completion of one token. With a recording to replay: whether it holds this model.

    Raises:
      ChatError: of the first route that fails.
      NotRecorded: the recording does not hold the model.
    """
    if self._exchanges.replays(self.model):
      return
    for route in self._routes:
      try:
        models = self._list_models(route)
        if self.model not in models:
          self._probe(route, models)
      except Passing as passing:
        # A busy endpoint is there, and the key was not refused.
        if not isinstance(passing.error, errors.RateLimited):
          raise passing.error from None

  def _list_models(self, route: Route) -> set[str]:
    exchange = self._wire.send(route, 'GET', '/models')
    if exchange.trouble or exchange.status in (401, 403):
      self._judge.check(exchange)
    try:
      return {entry['id'] for entry in completion_lib.decode(exchange.body)['data']}
    except (completion_lib.UnreadableBody, TypeError, KeyError):
      return set()

  def _probe(self, route: Route, models: set[str]) -> None:
    """Ask for one token: lists of models are often incomplete."""
    asked = {'model': self.model, 'max_tokens': 1, 'messages': [{'role': 'user', 'content': 'Hello'}]}
    sent: dict[str, Any] = {}
    exchange = self._send(route, asked, (), None, sent)
    try:
      self._judge.check(exchange)
    except errors.BadRequest as error:
      lesson, _ = self._learn(exchange, sent, error)
      if lesson is not None:
        return  # It minds the form, which is learned with the first request.
      if models:
        error.args = (f'{error}; it lists {", ".join(sorted(map(str, models))[:8])}',)
      raise

  def close(self) -> None:
    """Drop what waits, let no retry begin, close the connections."""
    self._closed.set()
    self.pool.shutdown(wait=False, cancel_futures=True)
    self._wire.close()

  def __enter__(self) -> 'ChatClient':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()

  def _final(self, passing: Passing, retries: int, num_refusals: int, call: Call) -> errors.ChatError | None:
    """What to raise where there is no next try, else None."""
    error = passing.error
    error.num_retries = retries
    secs = passing.retry_after_secs
    too_long = secs is not None and secs > _MAX_RETRY_AFTER_SECS and retries + 1 >= len(self._routes)
    if call.is_replay:
      is_final = call.is_last
    else:
      is_final = retries >= self._max_retries or num_refusals > _MAX_REFUSALS or too_long
    if not is_final:
      return None
    if too_long:
      error.args = (f'{error} (it asks to wait {secs:.0f} s)',)
    elif retries:
      error.args = (f'{error} (tried {retries + 1} times)',)
    return error

  def _wait(self, retry_after_secs: float | None, retries: int, call: Call) -> None:
    """Sleep before the next try."""
    if call.is_replay or retries + 1 < len(self._routes):
      return  # Another URL or key has not been tried: no need to wait for this one.
    # Full jitter: clients that failed together do not come back together.
    ceiling = min(_MAX_DELAY_SECS, _BASE_DELAY_SECS * 2 ** min(retries, 30))
    delay = self._jitter.uniform(0.0, ceiling)
    if retry_after_secs is not None:
      delay = retry_after_secs + self._jitter.uniform(0.0, _BASE_DELAY_SECS)
    self._closed.wait(delay)

  def _scrub(self, text: str) -> str:
    for key in self._keys:
      text = text.replace(key, '***')
    return text
