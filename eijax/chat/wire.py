"""One request over the network, and what came back, whatever that is.

Nothing here judges an answer. Every way in which the network or the server can misbehave
ends in an `Exchange` within bounded time and memory.
"""

import contextlib
import dataclasses
import io
import json
import math
import os
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import certifi
import orjson
import pycurl

from eijax import __version__
from eijax.chat.routes import Route

MAX_BODY_BYTES = 16 << 20  # A completion of 100,000 tokens is below 1 MiB.
# Headers that a reader of answers needs; the others may hold cookies and account names.
_KEPT_HEADERS = ('content-type', 'retry-after', 'retry-after-ms', 'location', 'x-request-id')
_CONNECT_TIMEOUT_SECS = 10.0
_CLOSED = 'the client was closed'
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
  try:
    return orjson.dumps(payload)
  except TypeError:
    # A whole number above 64 bits, or half a surrogate pair, which a model may emit and which is not valid in a request.
    return json.dumps(payload, ensure_ascii=False, separators=(',', ':')).encode('utf-8', 'replace')


_UNTRUSTED = frozenset((
    pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CONNECT_ERROR, pycurl.E_SSL_CACERT_BADFILE, pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER, pycurl.E_SSL_INVALIDCERTSTATUS, pycurl.E_SSL_ISSUER_ERROR,
))


class _Trouble(Exception):
  """The answer did not come whole: (name of the trouble, reason)."""


class _Answer:
  """What of an answer has come so far, and how long nothing has.

  Args:
    timeout_secs: longest silence.
    closed: set where nobody waits for the answer any more.
  """

  def __init__(self, timeout_secs: float, closed: threading.Event):
    self.is_silent = False
    self._timeout_secs = timeout_secs
    self._closed = closed
    self._moved = (0, time.monotonic())  # Bytes of both directions, and when they became as many.
    self.headers: dict[str, str] = {}  # Those of _KEPT_HEADERS.
    self.has_begun = False  # The headers are complete.
    self._encoding = ''
    self._pieces: list[bytes] = []
    self._size = 0

  def take_header(self, line: bytes) -> None:
    if line.startswith(b'HTTP/'):  # Of another answer, after an interim one.
      self.headers, self._encoding, self.has_begun = {}, '', False
    elif line in (b'\r\n', b'\n'):
      self.has_begun = True
    else:
      name, _, value = line.decode('latin-1').partition(':')
      name, value = name.strip().lower(), value.strip()
      if name in _KEPT_HEADERS:
        self.headers[name] = value
      elif name == 'content-encoding':
        self._encoding = value.lower()

  def take_piece(self, piece: bytes) -> int | None:
    self._size += len(piece)
    if self.is_too_large:
      return 0  # Breaks the transfer off.
    self._pieces.append(piece)
    return None

  def watch(self, total_down: int, down: int, total_up: int, up: int) -> bool:
    """Whether to break off; libcurl asks whenever something happens, and once a second otherwise."""
    del total_down, total_up
    moved, since = self._moved
    if down + up != moved:
      self._moved = (down + up, time.monotonic())
    elif time.monotonic() - since > self._timeout_secs:
      self.is_silent = True
    return self.is_silent or self._closed.is_set()

  @property
  def is_too_large(self) -> bool:
    return self._size > MAX_BODY_BYTES

  def body(self) -> bytes:
    """The whole body; raises _Trouble where it cannot be had."""
    body = b''.join(self._pieces)
    if self._encoding in ('', 'identity'):
      return body
    # None was asked for: libcurl would take half a compressed body for a whole one.
    if self._encoding not in ('gzip', 'x-gzip', 'deflate'):
      raise _Trouble('broken_off', f'the answer is encoded as {self._encoding[:40]}')
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # Finds out which of the two it is.
    try:
      body = unpacker.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
      raise _Trouble('broken_off', str(error)) from None
    if len(body) > MAX_BODY_BYTES:
      raise _Trouble('too_large', _too_large())
    if not unpacker.eof:
      raise _Trouble('broken_off', 'the compressed answer ends early')
    return body


class Wire:
  """Owns the connections: each thread keeps its own alive.

  libcurl does the talking. Proxies come from the environment (http_proxy, https_proxy, all_proxy, no_proxy), certificates
  from REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE where they are set. ~/.netrc is not read: an entry would replace the key.

  Args:
    routes: all that requests may go to.
    timeout_secs: longest silence of the server; seen up to a second late.
    deadline_secs: longest time for one whole exchange.
  """

  def __init__(self, routes: Sequence[Route], timeout_secs: float, deadline_secs: float):
    self._num_routes = len(routes)
    self._timeout_secs = timeout_secs
    self._deadline_secs = deadline_secs
    self._secrets = tuple(
        key.encode() for key in sorted({r.key for r in routes}, key=len, reverse=True) if len(key) >= _LEAST_SECRET_CHARS
    )
    self._local = threading.local()
    self._handles: list[pycurl.Curl] = []
    self._closed = threading.Event()
    self._certificates = os.environ.get('REQUESTS_CA_BUNDLE') or os.environ.get('CURL_CA_BUNDLE') or certifi.where()

  def send(self, route: Route, method: str, path: str, body: bytes = b'') -> Exchange:
    """Send one request and read the whole answer; never raises for what the other side does."""
    start = time.monotonic()
    status, headers, content, trouble, reason = 0, {}, b'', '', ''
    handle, answer = self._own_handle(), _Answer(self._timeout_secs, self._closed)
    try:
      if self._closed.is_set():
        raise _Trouble('unreachable', _CLOSED)
      self._set(handle, route, method, path)
      # A body that is read, not handed over, cannot be sent twice: libcurl would do so unseen where a kept connection breaks.
      handle.setopt(pycurl.READFUNCTION, io.BytesIO(body).read)
      if method == 'POST':
        handle.setopt(pycurl.POSTFIELDSIZE_LARGE, len(body))
      handle.setopt(pycurl.HEADERFUNCTION, answer.take_header)
      handle.setopt(pycurl.WRITEFUNCTION, answer.take_piece)
      handle.setopt(pycurl.XFERINFOFUNCTION, answer.watch)
      handle.perform()
      content, headers, status = answer.body(), answer.headers, handle.getinfo(pycurl.RESPONSE_CODE)
    except pycurl.error as error:
      trouble, reason = self._trouble(handle, answer, error, time.monotonic() - start)
    except _Trouble as error:
      trouble, reason = error.args
    if trouble:  # What broke an answer may have broken its connection.
      self._local.handle = None
      self._handles.remove(handle)
      handle.close()
    return Exchange(
        url=route.display, keyed=bool(route.key), sent=body, status=status,
        headers={name: self._masked(value.encode('latin-1')).decode('latin-1') for name, value in headers.items()},
        body=self._masked(content), latency_secs=time.monotonic() - start,
        trouble=trouble, reason=self._masked(reason.encode('utf-8', 'replace')).decode('utf-8'),
    )

  def _trouble(self, handle: pycurl.Curl, answer: _Answer, error: pycurl.error, secs: float) -> tuple[str, str]:
    """(Name, reason) of what went wrong."""
    if self._closed.is_set():  # The handle may be closed as well.
      return 'unreachable', _CLOSED
    code, words = error.args
    if answer.is_too_large:
      return 'too_large', _too_large()
    if code == pycurl.E_OPERATION_TIMEDOUT and secs >= self._deadline_secs:
      return 'slow', f'{self._deadline_secs:g} s'
    if code == pycurl.E_OPERATION_TIMEDOUT or answer.is_silent:
      return 'silent', f'{self._timeout_secs:g} s'
    number = handle.getinfo(pycurl.OS_ERRNO)
    reason = os.strerror(number) if number else ' '.join(words.split())[:200]
    if code in _UNTRUSTED:
      return 'untrusted', ' '.join(words.split())[:200]
    return ('broken_off' if answer.has_begun else 'unreachable'), reason

  def _masked(self, content: bytes) -> bytes:
    for secret in self._secrets:
      content = content.replace(secret, b'***')
    return content

  def _own_handle(self) -> pycurl.Curl:
    """This thread's handle."""
    handle = getattr(self._local, 'handle', None)
    if handle is None:
      handle = self._local.handle = self._new_handle()
      self._handles.append(handle)
      self._local.kind = None
    return handle

  def _set(self, handle: pycurl.Curl, route: Route, method: str, path: str) -> None:
    """Set a handle for one kind of request, where it is not."""
    if self._local.kind != (route, method, path):
      headers = ['Content-Type: application/json', 'Accept: application/json', 'Expect:']
      if route.key:
        headers.append(f'Authorization: Bearer {route.key}')
      handle.setopt(pycurl.URL, route.url + path)
      handle.setopt(pycurl.HTTPHEADER, headers)
      handle.setopt(pycurl.POST if method == 'POST' else pycurl.HTTPGET, 1)
      self._local.kind = (route, method, path)

  def _new_handle(self) -> pycurl.Curl:
    handle = pycurl.Curl()
    for option, value in (
        (pycurl.NOSIGNAL, 1),  # Signals and threads do not go together.
        (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
        (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
        (pycurl.USERAGENT, f'eijax/{__version__}'),
        (pycurl.MAXCONNECTS, self._num_routes),
        (pycurl.CONNECTTIMEOUT_MS, _whole_ms(min(_CONNECT_TIMEOUT_SECS, self._timeout_secs))),
        (pycurl.NOPROGRESS, 0),
        (pycurl.TIMEOUT_MS, _whole_ms(self._deadline_secs)),
        (pycurl.CAPATH if os.path.isdir(self._certificates) else pycurl.CAINFO, self._certificates),
    ):
      handle.setopt(option, value)
    return handle

  def close(self) -> None:
    """Close the connections; requests that are under way break off within a second."""
    self._closed.set()
    for handle in list(self._handles):
      with contextlib.suppress(pycurl.error):  # It is at work.
        handle.close()


def _too_large() -> str:
  return f'more than {MAX_BODY_BYTES >> 20} MiB'


def _whole_ms(secs: float) -> int:
  """At least one: 0 stands for no limit."""
  return max(1, math.ceil(1e3 * secs))
