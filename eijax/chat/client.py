"""A client for OpenAI-compatible chat completions: many requests in flight, typed failures.

Each thread keeps its own connections alive. Failures that may pass are retried with
exponential back-off and full jitter, on the next URL or key where there are several;
`Retry-After` is honoured.
"""

import concurrent.futures
import dataclasses
import itertools
import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import requests
import requests.adapters
import requests.utils
import urllib3

from eijax.chat import completion as completion_lib
from eijax.chat import errors
from eijax.chat.routes import Route, make_routes

_CONNECT_TIMEOUT_SECS = 10.0
_BASE_DELAY_SECS = 0.5
_MAX_DELAY_SECS = 30.0
# A longer wait than this is better reported than slept through.
_MAX_RETRY_AFTER_SECS = 300.0
_PASSING_STATUS = frozenset((408, 409, 425, 429))
_CONTEXT_WORDS = (
    'context length', 'context_length', 'context window', 'maximum context', 'too many tokens',
    'prompt is too long', 'input is too long', 'input length', 'reduce the length', 'max_model_len',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatResult:
  """One answer; see `eijax.chat.completion.Completion` for the text fields.

  latency_secs: of the request that succeeded, without earlier tries and waits.
  """

  text: str
  finish_reason: str
  usage: Mapping[str, Any]
  latency_secs: float
  retries: int
  reasoning: str = ''
  from_reasoning: bool = False


class _Passing(Exception):
  """A failure that may pass: what to raise if it does not, and the wait that was asked for."""

  def __init__(self, error: errors.ChatError, retry_after_secs: float | None = None):
    super().__init__(str(error))
    self.error = error
    self.retry_after_secs = retry_after_secs


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
  ):
    for name, value, least in (
        ('concurrency', concurrency, 1), ('max_retries', max_retries, 0), ('timeout_secs', timeout_secs, 1e-3),
    ):
      if value < least:
        raise ValueError(f'{name}={value} must be >= {least}; raise it')
    self.model = model
    self.concurrency = concurrency
    self._routes = make_routes(urls, api_keys, key_variable)
    self._keys = tuple(sorted(set(filter(None, api_keys)), key=len, reverse=True))
    self._key_variable = key_variable
    self._timeout = (min(_CONNECT_TIMEOUT_SECS, timeout_secs), timeout_secs)
    self._max_retries = max_retries
    self._turn = itertools.count()  # Spreads requests over the routes; next() is atomic.
    self._jitter = random.Random()
    self._local = threading.local()
    self._closed = threading.Event()
    self._sessions: list[requests.Session] = []
    # Read once: requests would search the environment and ~/.netrc on every request, and a
    # netrc entry would replace the key.
    self._verify = os.environ.get('REQUESTS_CA_BUNDLE') or os.environ.get('CURL_CA_BUNDLE') or True
    self._proxies = {r.url: requests.utils.get_environ_proxies(r.url) for r in self._routes}
    self.pool = concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix='chat')

  @property
  def display(self) -> str:
    """Model and URLs, for messages and records; no secrets."""
    return f'{self.model} at {", ".join(dict.fromkeys(route.display for route in self._routes))}'

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
      extra_body: further fields of the request (top_p, stop, provider settings).
    Raises:
      ChatError: one of `eijax.chat.errors`, after the retries where they can help.
    """
    fields = {
        'temperature': temperature, 'max_tokens': max_tokens, 'seed': seed, 'response_format': response_format,
    }
    payload = {'model': self.model, 'messages': list(messages)}
    payload |= {name: value for name, value in fields.items() if value is not None}
    payload |= extra_body or {}
    # Half a surrogate pair, which a model may emit, is not valid in a request.
    body = json.dumps(payload, ensure_ascii=False).encode('utf-8', 'replace')
    first = next(self._turn)
    for attempt in itertools.count():
      if self._closed.is_set():
        raise errors.Closed('the chat client was closed while a request was under way')
      route = self._routes[(first + attempt) % len(self._routes)]
      try:
        answer, latency_secs = self._try(route, body)
      except _Passing as passing:
        self._wait(passing, attempt)
        continue
      except errors.ChatError as error:
        error.num_retries = attempt
        raise
      return ChatResult(
          text=answer.text, finish_reason=answer.finish_reason, usage=answer.usage,
          latency_secs=latency_secs, retries=attempt,
          reasoning=answer.reasoning, from_reasoning=answer.from_reasoning,
      )

  def submit(self, messages: Sequence[Mapping[str, Any]], **settings) -> concurrent.futures.Future:
    """`complete` in a worker thread; returns a Future of ChatResult."""
    return self.pool.submit(self.complete, messages, **settings)

  def check(self) -> None:
    """Find out, without retries, whether every URL answers, takes its key and has the model.

    Asks for the list of models; where there is none, or the model is not in it, asks for
    a completion of one token.

    Raises:
      ChatError: of the first route that fails.
    """
    for route in self._routes:
      try:
        models = self._list_models(route)
        if self.model not in models:
          self._probe(route, models)
      except _Passing as passing:
        # A busy endpoint is there, and the key was not refused.
        if not isinstance(passing.error, errors.RateLimited):
          raise passing.error from None

  def _probe(self, route: Route, models: set[str]) -> None:
    """Ask for one token: lists of models are often incomplete."""
    payload = {'model': self.model, 'max_tokens': 1, 'messages': [{'role': 'user', 'content': 'Hello'}]}
    response, _ = self._send(route, 'POST', '/chat/completions', json.dumps(payload).encode())
    try:
      self._raise_for_status(route, response)
    except errors.BadRequest as error:
      if models:
        error.args = (f'{error}; it lists {", ".join(sorted(models)[:8])}',)
      raise

  def close(self) -> None:
    """Drop what waits, let no retry begin, close the connections."""
    self._closed.set()
    self.pool.shutdown(wait=False, cancel_futures=True)
    for session in self._sessions:
      session.close()

  def __enter__(self) -> 'ChatClient':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()

  def _session(self) -> requests.Session:
    session = getattr(self._local, 'session', None)
    if session is None:
      session = requests.Session()
      session.trust_env = False
      session.verify = self._verify
      adapter = requests.adapters.HTTPAdapter(pool_connections=len(self._routes), pool_maxsize=1)
      session.mount('http://', adapter)
      session.mount('https://', adapter)
      self._local.session = session
      self._sessions.append(session)
    return session

  def _send(
      self, route: Route, method: str, path: str, body: bytes | None = None
  ) -> tuple[requests.Response, float]:
    headers = {'Content-Type': 'application/json', 'Accept': 'application/json'}
    if route.key:
      headers['Authorization'] = f'Bearer {route.key}'
    start = time.monotonic()
    try:
      response = self._session().request(
          method, route.url + path, data=body, headers=headers, timeout=self._timeout,
          allow_redirects=False, proxies=self._proxies[route.url],
      )
    except requests.Timeout:
      raise _Passing(errors.Unreachable(
          f'{route.display} sent nothing for {self._timeout[1]:g} s; raise the timeout, '
          'lower the concurrency, or look at the load of the server'
      )) from None
    except requests.exceptions.SSLError as error:
      raise errors.Unreachable(self._scrub(
          f'{route.display} cannot be trusted ({_reason(error)}); mend its certificate or set REQUESTS_CA_BUNDLE'
      )) from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
      raise _Passing(errors.Unreachable(self._scrub(
          f'{route.display} cannot be reached ({_reason(error)}); check the URL and that the server runs'
      ))) from None
    return response, time.monotonic() - start

  def _try(self, route: Route, body: bytes) -> tuple[completion_lib.Completion, float]:
    response, latency_secs = self._send(route, 'POST', '/chat/completions', body)
    self._raise_for_status(route, response)
    try:
      return completion_lib.read_completion(response.content), latency_secs
    except completion_lib.UnreadableBody as error:
      raise _Passing(errors.BadAnswer(self._scrub(
          f'{route.display} answered, but not with a chat completion: {error}; check that the URL ends in /v1'
      ))) from None
    except completion_lib.ReportedError as error:
      if error.status in (401, 403):
        raise self._unauthorized(route, error.status, str(error)) from None
      raise _Passing(errors.ServerFailed(
          self._scrub(f'{route.display} reports an error: {error}; look at the provider')
      )) from None

  def _list_models(self, route: Route) -> set[str]:
    response, _ = self._send(route, 'GET', '/models')
    if response.status_code in (401, 403):
      self._raise_for_status(route, response)
    try:
      return {entry['id'] for entry in completion_lib.decode(response.content)['data']}
    except (completion_lib.UnreadableBody, TypeError, KeyError):
      return set()

  def _raise_for_status(self, route: Route, response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
      return
    words = self._scrub(completion_lib.error_message(response.content))
    said = f'{route.display} answered {status}' + (f': {words}' if words else '')
    if status in (401, 403):
      raise self._unauthorized(route, status, words)
    if status == 429:
      error = errors.RateLimited(f'{said}; lower the concurrency or add keys to {self._key_variable}')
      if 'insufficient_quota' in completion_lib.error_code(response.content):
        raise error  # Waiting does not fill an account.
      raise _Passing(error, _retry_after_secs(response))
    if status in _PASSING_STATUS or status >= 500:
      raise _Passing(errors.ServerFailed(f'{said}; look at the log of the server'), _retry_after_secs(response))
    code = completion_lib.error_code(response.content)
    if status in (400, 413, 422) and any(word in f'{code} {words}'.lower() for word in _CONTEXT_WORDS):
      raise errors.ContextTooLong(f'{said}; lower max_tokens or use a model with a longer context')
    if 300 <= status < 400:
      raise errors.BadRequest(f'{said}, a redirect; give the URL that it leads to')
    raise errors.BadRequest(f'{said}; check the model name ({self.model}) and that the URL ends in /v1')

  def _unauthorized(self, route: Route, status: int, words: str) -> errors.Unauthorized:
    state = 'the key is refused' if route.key else 'no key was sent'
    said = self._scrub(f': {words}' if words else '')
    return errors.Unauthorized(
        f'{route.display} answered {status} ({state}){said}; '
        f'set {self._key_variable} to a key that this endpoint accepts'
    )

  def _wait(self, passing: _Passing, attempt: int) -> None:
    """Sleep before the next try, or raise where there is none."""
    error = passing.error
    error.num_retries = attempt
    retry_after_secs = passing.retry_after_secs
    if attempt >= self._max_retries:
      if attempt:
        error.args = (f'{error} (tried {attempt + 1} times)',)
      raise error from None
    if attempt + 1 < len(self._routes):
      return  # Another URL or key has not been tried: no need to wait for this one.
    if retry_after_secs is not None and retry_after_secs > _MAX_RETRY_AFTER_SECS:
      error.args = (f'{error} (it asks to wait {retry_after_secs:.0f} s)',)
      raise error from None
    # Full jitter: clients that failed together do not come back together.
    ceiling = min(_MAX_DELAY_SECS, _BASE_DELAY_SECS * 2 ** min(attempt, 30))
    delay = self._jitter.uniform(0.0, ceiling)
    if retry_after_secs is not None:
      delay = retry_after_secs + self._jitter.uniform(0.0, _BASE_DELAY_SECS)
    self._closed.wait(delay)

  def _scrub(self, text: str) -> str:
    for key in self._keys:
      text = text.replace(key, '***')
    return text


def _reason(error: BaseException) -> str:
  """The innermost cause in plain words ('Connection refused'), without addresses of objects."""
  causes = [error]
  while (inner := _inner(causes[-1])) is not None and inner not in causes:
    causes.append(inner)
  last = causes[-1]
  if isinstance(last, OSError) and last.strerror:
    return last.strerror
  return ' '.join(f'{type(last).__name__}: {last}'.split())[:200]


def _inner(error: BaseException) -> BaseException | None:
  candidates = [getattr(error, 'reason', None), error.__cause__, *error.args, error.__context__]
  return next((item for item in candidates if isinstance(item, BaseException)), None)


def _retry_after_secs(response: requests.Response) -> float | None:
  value = response.headers.get('Retry-After')
  if value is None:
    return None
  try:
    # Seconds, by some providers with a fraction, or an HTTP date.
    secs = float(value) if '.' in value else urllib3.Retry().parse_retry_after(value)
    return max(0.0, float(secs))
  except (ValueError, OverflowError, urllib3.exceptions.HTTPError):
    return None  # Not a time: the usual back-off serves.
