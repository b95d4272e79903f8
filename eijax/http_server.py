"""HTTP services with a thread for each connection: JSON in and out, size limits, keys, server-sent events, an orderly end.

For services whose answers are few and long. Standard library only; HTTP/1.1 keep-alive.
"""

from collections.abc import Callable, Mapping
import hmac
import http.server
import json
import os
import select
import signal
import socket
import socketserver
import sys
import threading
from typing import Protocol

from eijax import collector

# A refused body up to this many times the limit is read and thrown away: a client that is still sending
# would see a broken connection instead of the answer.
_DISCARD_FACTOR = 16
_BLOCK_BYTES = 1 << 16


class JsonHandler(http.server.BaseHTTPRequestHandler):
  """One connection. The server object carries `api_key` (None for none) and what a service needs."""

  protocol_version = 'HTTP/1.1'
  disable_nagle_algorithm = True
  wbufsize = -1  # Head and body leave in one packet.
  max_body_bytes = 1 << 20

  def error_body(self, status: int, message: str) -> object:
    """The JSON body of an error; a service may have a format of its own."""
    return {'error': {'message': message, 'code': status}}

  def read_body(self) -> bytes | None:
    """The request's body; None after an error was sent instead."""
    length = self.headers.get('Content-Length', '')
    if not (length.isascii() and length.isdecimal()):
      self.close_connection = True
      self.send_problem(411, 'Content-Length is missing')
      return None
    if len(length) > 18 or int(length) > self.max_body_bytes:
      self.close_connection = True
      self.send_problem(413, f'request body of {length[:18]} bytes is over the limit of {self.max_body_bytes}')
      self._discard(int(length[:18]))
      return None
    return self.rfile.read(int(length))

  def _discard(self, length: int) -> None:
    left = min(length, _DISCARD_FACTOR * self.max_body_bytes)
    self.connection.settimeout(1.0)
    try:
      while left > 0 and (block := self.rfile.read1(min(left, _BLOCK_BYTES))):
        left -= len(block)
    except OSError:
      pass

  def handle_expect_100(self) -> bool:
    """Invite a body only where it will be read."""
    length = self.headers.get('Content-Length', '')
    if length.isascii() and length.isdecimal() and len(length) < 18 and int(length) <= self.max_body_bytes:
      return super().handle_expect_100()
    return True

  def is_authorised(self) -> bool:
    """Whether the request carries the server's key, if it has one."""
    key = self.server.api_key
    given = self.headers.get('Authorization', '')
    return key is None or hmac.compare_digest(given.encode('utf-8', 'replace'), f'Bearer {key}'.encode())

  def send_problem(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
    self.send(status, self.error_body(status, message), headers)

  def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
    """What the standard library refuses by itself (bad syntax, unknown method) is refused in JSON as well."""
    self.close_connection = True
    self.send_problem(code, message or http.HTTPStatus(code).phrase)

  def send(self, status: int, payload: object, headers: Mapping[str, str] | None = None) -> None:
    """Send an answer in JSON."""
    data = json.dumps(payload, ensure_ascii=False).encode('utf-8', 'replace')
    self._send_head(status, {
        'Content-Type': 'application/json; charset=utf-8', **(headers or {}), 'Content-Length': str(len(data))})
    if self.command != 'HEAD':
      self.wfile.write(data)
    self.wfile.flush()

  def begin_events(self) -> None:
    """Start a stream of server-sent events; `send_event` and `end_events` follow."""
    self._send_head(200, {
        'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache', 'Transfer-Encoding': 'chunked'})

  def send_event(self, data: str) -> None:
    self._send_chunk(f'data: {data}\n\n'.encode('utf-8', 'replace'))

  def end_events(self) -> None:
    self._send_chunk(b'')

  def _send_chunk(self, data: bytes) -> None:
    self.wfile.write(b'%x\r\n%s\r\n' % (len(data), data))
    self.wfile.flush()

  def _send_head(self, status: int, headers: Mapping[str, str]) -> None:
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name, value)
    if self.close_connection:
      self.send_header('Connection', 'close')
    self.end_headers()

  def peer_has_left(self) -> bool:
    """Whether the client has closed its side while it waits for an answer."""
    try:
      ready, _, _ = select.select([self.connection], [], [], 0)
      return bool(ready) and not self.connection.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):
      return True

  def log_message(self, format: str, *args: object) -> None:  # pylint: disable=redefined-builtin
    """Keep quiet: an evaluation sends thousands of requests."""


class JsonServer(http.server.ThreadingHTTPServer):
  """One thread a connection. Port 0 takes a free one.

  Args:
    listen: false binds the port only, so that it is known to be free; `server_activate` listens.
  Raises:
    OSError: the address cannot be opened.
  """

  daemon_threads = True
  request_queue_size = 256

  def __init__(self, host: str, port: int, handler: type[JsonHandler], *, api_key: str | None = None, listen: bool = True):
    self.api_key = api_key
    if ':' in host:
      self.address_family = socket.AF_INET6
    super().__init__((host, port), handler, bind_and_activate=False)
    try:
      self.server_bind()
      if listen:
        self.server_activate()
    except BaseException:
      self.server_close()
      raise

  def server_bind(self) -> None:
    """Without the standard library's look-up of our own name, which may ask a name server."""
    socketserver.TCPServer.server_bind(self)
    self.server_name, self.server_port = self.server_address[:2]

  @property
  def url(self) -> str:
    """Base URL for clients."""
    host = self.server_address[0]
    return f'http://{f"[{host}]" if ":" in host else host}:{self.server_address[1]}/v1'

  def handle_error(self, request: object, client_address: object) -> None:
    """A client that hangs up is no error of ours; anything else is a bug and is shown."""
    if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError, ValueError)):
      super().handle_error(request, client_address)


class Service(Protocol):
  """What can be served until a signal comes: a JsonServer, or one of `eijax.http_loop`."""

  def serve_forever(self, poll_interval: float = ...) -> None:
    """Serve until `shutdown`."""

  def shutdown(self) -> None:
    """End it, from another thread."""

  def server_close(self) -> None:
    """Give the address back."""


def serve_until_stopped(
    server: Service, ready_line: str, *, before_end: Callable[[int], None] = lambda number: None,
) -> None:
  """Print the ready line and serve until SIGTERM or SIGINT.

  Args:
    before_end: called with the number of the signal (1, 2, ...) in a thread of its own, while the
      server still answers; the server ends once a call has returned.
  """
  count = 0

  def end(number: int) -> None:
    before_end(number)
    server.shutdown()

  def stop(*_: object) -> None:
    # shutdown() waits for serve_forever, which runs in this very thread.
    nonlocal count
    count += 1
    threading.Thread(target=end, args=(count,), daemon=True).start()

  for name in (signal.SIGTERM, signal.SIGINT):
    signal.signal(name, stop)
  collector.relieve()
  # Only now: who reads the line may send a signal at once.
  print(ready_line, flush=True)
  try:
    server.serve_forever(poll_interval=0.2)
  finally:
    server.server_close()
