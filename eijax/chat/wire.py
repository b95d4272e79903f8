"""One request over the network, and what came back, whatever that is.

Nothing here judges an answer. Every way in which the network or the server can misbehave
ends in an `Exchange` within bounded time and memory.
"""

import contextlib
import dataclasses
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import requests
import requests.adapters
import requests.utils
import urllib3

from eijax.chat.routes import Route

MAX_BODY_BYTES = 16 << 20  # A completion of 100,000 tokens is below 1 MiB.
# Headers that a reader of answers needs; the others may hold cookies and account names.
_KEPT_HEADERS = ('content-type', 'retry-after', 'retry-after-ms', 'location', 'x-request-id')
_CONNECT_TIMEOUT_SECS = 10.0
_READ_BYTES = 64 << 10
# The client decides itself about another try. Made once: urllib3 would make one for each request.
_NO_RETRY = urllib3.Retry(False, redirect=False)
_LEAST_SECRET_CHARS = 8  # Shorter keys could stand in an answer by chance.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exchange:
  """One try.

  url: base URL without secrets. keyed: whether a key was sent.
  sent: body of the request as it went out.
  status: of a whole answer; 0 where none came.
  headers: some of the answer, names in lower case.
  body: of the answer, content encoding undone, API keys masked.
  latency_secs: until the last byte, or until the trouble.
  trouble: '' or 'silent' (nothing came for the time allowed), 'slow' (the whole took too long),
    'unreachable', 'broken_off' (the answer ended early), 'too_large', 'untrusted' (certificate).
  reason: of the trouble, in words.
  """

  url: str
  keyed: bool
  sent: bytes
  status: int = 0
  headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
  body: bytes = b''
  latency_secs: float = 0.0
  trouble: str = ''
  reason: str = ''


def encode(payload: Mapping[str, Any]) -> bytes:
  """A request as the bytes that go out."""
  # Half a surrogate pair, which a model may emit, is not valid in a request.
  return json.dumps(payload, ensure_ascii=False).encode('utf-8', 'replace')


class _Trouble(Exception):
  """The answer did not come whole: (name of the trouble, reason)."""


class _Line(NamedTuple):
  """A connection that is set up as requests would, proxy and certificates included, and then used without it.

  Going through a session costs several times as much as all else in a request: it merges
  settings, takes the URL apart and prepares headers, each time anew.

  target: of the request line; a whole URL for some proxies.
  """

  pool: urllib3.HTTPConnectionPool
  target: str
  headers: dict[str, str]


class Wire:
  """Owns the connections: each thread keeps its own alive.

  Args:
    routes: all that requests may go to.
    timeout_secs: longest silence of the server.
    deadline_secs: longest time for one whole exchange.
  """

  def __init__(self, routes: Sequence[Route], timeout_secs: float, deadline_secs: float):
    self._num_routes = len(routes)
    self._timeout = urllib3.Timeout(connect=min(_CONNECT_TIMEOUT_SECS, timeout_secs), read=timeout_secs)
    self._timeout_secs = timeout_secs
    self._deadline_secs = deadline_secs
    self._secrets = tuple(
        key.encode() for key in sorted({r.key for r in routes}, key=len, reverse=True) if len(key) >= _LEAST_SECRET_CHARS
    )
    self._local = threading.local()
    self._sessions: list[requests.Session] = []
    # Read once: requests would search the environment and ~/.netrc on every request, and a
    # netrc entry would replace the key.
    self._verify = os.environ.get('REQUESTS_CA_BUNDLE') or os.environ.get('CURL_CA_BUNDLE') or True
    self._proxies = {r.url: requests.utils.get_environ_proxies(r.url) for r in routes}

  def send(self, route: Route, method: str, path: str, body: bytes = b'') -> Exchange:
    """Send one request and read the whole answer; never raises for what the other side does."""
    headers = {'Content-Type': 'application/json', 'Accept': 'application/json'}
    if route.key:
      headers['Authorization'] = f'Bearer {route.key}'
    start = time.monotonic()
    status, kept, content, trouble, reason = 0, {}, b'', '', ''
    try:
      line = self._line(route, method, path)
      with contextlib.closing(line.pool.urlopen(
          method, line.target, body=body or None, headers=headers | line.headers, timeout=self._timeout, retries=_NO_RETRY,
          redirect=False, assert_same_host=False, preload_content=False, decode_content=False,
      )) as response:
        content = self._read(response, start + self._deadline_secs)
        status = response.status
        kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    except _Trouble as error:
      trouble, reason = error.args
    except urllib3.exceptions.NewConnectionError as error:  # Refused, or no such host: no matter of time.
      trouble, reason = 'unreachable', _reason(error)
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
      trouble, reason = 'silent', f'{self._timeout_secs:g} s'
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
      trouble, reason = 'untrusted', _reason(error)
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
      trouble, reason = 'unreachable', _reason(error)
    if trouble:
      self._hang_up()
    return Exchange(
        url=route.display, keyed=bool(route.key), sent=body, status=status,
        headers={name: self._masked(value.encode('latin-1', 'replace')).decode('latin-1') for name, value in kept.items()},
        body=self._masked(content), latency_secs=time.monotonic() - start,
        trouble=trouble, reason=self._masked(reason.encode('utf-8', 'replace')).decode('utf-8'),
    )

  def _read(self, response: urllib3.BaseHTTPResponse, deadline: float) -> bytes:
    """The body as it comes, within the bounds of time and size."""
    pieces, size = [], 0
    try:
      # read1 returns what is there; other calls would wait for a slow server to fill a block.
      while piece := response.read1(_READ_BYTES, decode_content=True):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BODY_BYTES:
          raise _Trouble('too_large', f'more than {MAX_BODY_BYTES >> 20} MiB')
        if time.monotonic() > deadline:
          raise _Trouble('slow', f'{self._deadline_secs:g} s')
    except urllib3.exceptions.TimeoutError:
      raise
    except urllib3.exceptions.SSLError as error:
      raise _Trouble('broken_off', _reason(error)) from None
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
      # ValueError: a chunk length that is no number.
      raise _Trouble('broken_off', _reason(error)) from None
    return b''.join(pieces)

  def _masked(self, content: bytes) -> bytes:
    for secret in self._secrets:
      content = content.replace(secret, b'***')
    return content

  def _line(self, route: Route, method: str, path: str) -> _Line:
    """This thread's connection for one kind of request."""
    lines = getattr(self._local, 'lines', None)
    if lines is None:
      lines = self._local.lines = {}
    if (route, method, path) not in lines:
      session = self._session()
      proxies = self._proxies[route.url]
      request = session.prepare_request(requests.Request(method, route.url + path))
      adapter = session.get_adapter(request.url)
      pool = adapter.get_connection_with_tls_context(request, self._verify, proxies=proxies)
      adapter.cert_verify(pool, request.url, self._verify, None)
      # Those that requests adds: of an account in the URL, what it takes compressed.
      headers = {name: value for name, value in request.headers.items() if name not in ('Accept', 'Content-Length')}
      lines[route, method, path] = _Line(pool, adapter.request_url(request, proxies), headers)
    return lines[route, method, path]

  def _session(self) -> requests.Session:
    session = getattr(self._local, 'session', None)
    if session is None:
      session = requests.Session()
      session.trust_env = False
      adapter = requests.adapters.HTTPAdapter(pool_connections=self._num_routes, pool_maxsize=1)
      session.mount('http://', adapter)
      session.mount('https://', adapter)
      self._local.session = session
      self._sessions.append(session)
    return session

  def _hang_up(self) -> None:
    """Let the next request of this thread begin on a new connection: what broke an answer may have broken this one."""
    session = getattr(self._local, 'session', None)
    if session is not None:
      session.close()
      self._sessions.remove(session)
      self._local.session = self._local.lines = None

  def close(self) -> None:
    for session in list(self._sessions):
      session.close()


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
