"""HTTP services on one event loop: JSON in and out, size limits, keys, an orderly end.

For services that answer thousands of short requests, most of which wait for nothing but a delay: a thread for each
connection, as in `eijax.http_server`, spends more time on changing threads than on the answers. aiohttp speaks HTTP.
"""

import abc
import asyncio
from collections.abc import Mapping
import hmac
import json
import logging
import socket
import threading
import traceback

from aiohttp import web
try:
  from uvloop import new_event_loop
except ImportError:  # Not on every platform; the standard loop does the same, slower.
  from asyncio import new_event_loop

MAX_BODY_BYTES = 1 << 20
_BACKLOG = 256
_SHUTDOWN_SECS = 0.2
# What cannot be understood as HTTP is answered, and no matter for the terminal.
_QUIET = logging.getLogger(f'{__name__}.connections')
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class Problem(Exception):
  """Ends a request with an error. args: status, message."""


def json_response(status: int, payload: object, headers: Mapping[str, str] | None = None) -> web.Response:
  """An answer in JSON."""
  return bytes_response(status, json.dumps(payload, ensure_ascii=False).encode('utf-8', 'replace'), headers)


def bytes_response(status: int, data: bytes, headers: Mapping[str, str] | None = None) -> web.Response:
  """An answer that is JSON by its header, unless `headers` say otherwise."""
  return web.Response(status=status, body=data, headers={'Content-Type': 'application/json; charset=utf-8', **(headers or {})})


def problem_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
  return json_response(status, {'error': {'message': message, 'code': status}}, headers)


async def read_body(request: web.BaseRequest) -> bytes:
  """The request's body; raises Problem where it has none or too much."""
  length = request.content_length
  if length is None and not request.body_exists:
    raise Problem(411, 'Content-Length is missing')
  if length is not None and length > MAX_BODY_BYTES:
    raise Problem(413, f'request body of {length} bytes is over the limit of {MAX_BODY_BYTES}')
  if request.headers.get('Expect', '').lower() == '100-continue':
    request.transport.write(b'HTTP/1.1 100 Continue\r\n\r\n')
  try:
    return await request.read()
  except web.HTTPRequestEntityTooLarge:
    raise Problem(413, f'request body is over the limit of {MAX_BODY_BYTES} bytes') from None


class LoopServer(abc.ABC):
  """Binds at once, serves where `serve_forever` is called. Port 0 takes a free one; `url` is the base URL for clients.

  Raises:
    OSError: the address cannot be opened.
  """

  def __init__(self, host: str, port: int, *, api_key: str | None = None):
    self.api_key = api_key
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    bound, port = self._socket.getsockname()[:2]
    self.url = f'http://{f"[{bound}]" if ":" in bound else bound}:{port}/v1'
    self._loop: asyncio.AbstractEventLoop | None = None
    self._stopped = threading.Event()  # Somebody asked for the end, perhaps before the beginning.
    self._ended = threading.Event()
    self._ended.set()

  @abc.abstractmethod
  async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
    """Answer one request; a Problem becomes an error in JSON."""

  def is_authorised(self, request: web.BaseRequest) -> bool:
    """Whether the request carries the server's key, if it has one."""
    given = request.headers.get('Authorization', '')
    return self.api_key is None or hmac.compare_digest(given.encode('utf-8', 'replace'), f'Bearer {self.api_key}'.encode())

  def serve_forever(self, poll_interval: float = 0.2) -> None:
    """Serve until `shutdown`, which another thread calls. poll_interval is for likeness with socketserver."""
    del poll_interval
    self._ended.clear()
    try:
      with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(self._serve())
    finally:
      self._ended.set()

  def shutdown(self) -> None:
    """End `serve_forever`, and wait until it has ended."""
    self._stopped.set()
    loop = self._loop
    if loop is not None and not loop.is_closed():
      loop.call_soon_threadsafe(self._wake.set)
    self._ended.wait()

  def server_close(self) -> None:
    self._socket.close()

  async def _serve(self) -> None:
    self._wake = asyncio.Event()
    self._loop = asyncio.get_running_loop()
    if self._stopped.is_set():
      return
    server = web.Server(self._handle, access_log=None, logger=_QUIET)
    runner = web.ServerRunner(server, shutdown_timeout=_SHUTDOWN_SECS)
    await runner.setup()
    await web.SockSite(runner, self._socket, backlog=_BACKLOG).start()
    await self._wake.wait()
    await runner.cleanup()

  async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
    try:
      return await self.respond(request)
    except Problem as problem:
      response = problem_response(*problem.args)
      if problem.args[0] in (411, 413):
        response.force_close()  # aiohttp reads on for some seconds: a client that still sends would not see the answer.
      return response
    except ConnectionError:  # A client that hangs up is no error of ours.
      raise
    except Exception:  # pylint: disable=broad-exception-caught
      traceback.print_exc()  # A bug: it is shown, and the next request is served.
      return problem_response(500, 'internal error')
