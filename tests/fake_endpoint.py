"""A scripted OpenAI-compatible endpoint on loopback that can fail in every known way."""

import dataclasses
import http.server
import json
import threading
import time
from collections.abc import Callable
from typing import Any


def chat_body(text: Any, finish_reason: str = 'stop', **message) -> dict:
  """The body of a chat completion; `message` adds fields such as reasoning_content."""
  return {
      'choices': [{'message': {'role': 'assistant', 'content': text, **message}, 'finish_reason': finish_reason}],
      'usage': {'completion_tokens': 7},
  }


@dataclasses.dataclass(frozen=True)
class Fault:
  """One scripted answer. body: bytes as they are, anything else as JSON.

  raw: the whole answer, head included, in pieces with interval_secs between them; the connection
  is closed after the last one.
  """

  status: int = 200
  body: Any = None
  headers: dict = dataclasses.field(default_factory=dict)
  delay_secs: float = 0.0
  drop: bool = False  # Close the connection without a word.
  only: str = '/chat/completions'
  raw: tuple[bytes, ...] = ()
  interval_secs: float = 0.0


class FakeEndpoint:
  """Serves `answer(request)` after the faults of `script` have been used up, in order.

  Attributes:
    requests: the decoded bodies of all completions, in order of arrival.
    headers: their headers.
    keys: where not None, other bearer keys get 401.

  tls: an ssl.SSLContext; without one, plain HTTP.
  """

  def __init__(self, answer: Callable[[dict], Any] = lambda request: 'Hello.', script=(), keys=None, models=('m',), tls=None):
    self.answer, self.script, self.keys, self.models = answer, list(script), keys, models
    self.requests, self.headers = [], []
    self.num_connections = 0
    self.num_in_flight = self.max_in_flight = 0
    self.lock = threading.Lock()
    endpoint = self

    class Handler(http.server.BaseHTTPRequestHandler):
      protocol_version = 'HTTP/1.1'
      wbufsize = -1  # One packet an answer: Nagle's algorithm would add 40 ms to two.
      disable_nagle_algorithm = True

      def setup(self):
        super().setup()
        with endpoint.lock:
          endpoint.num_connections += 1

      def log_message(self, *args):
        pass

      def do_GET(self):
        endpoint._handle(self, None)

      def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        endpoint._handle(self, json.loads(body))

    class Server(http.server.ThreadingHTTPServer):
      daemon_threads = True
      request_queue_size = 128

      def handle_error(self, request, client_address):
        pass  # Dropped connections are part of the script.

    self._server = Server(('127.0.0.1', 0), Handler)
    if tls is not None:
      self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
    self.url = f'{"http" if tls is None else "https"}://127.0.0.1:{self._server.server_port}/v1'
    threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

  def _handle(self, handler, request):
    with self.lock:
      self.num_in_flight += 1
      self.max_in_flight = max(self.max_in_flight, self.num_in_flight)
      fault = next((f for f in self.script if handler.path.endswith(f.only)), None)
      if fault is not None:
        self.script.remove(fault)
      if request is not None:
        self.requests.append(request)
        self.headers.append(dict(handler.headers))
    try:
      self._answer(handler, request, fault)
    finally:
      with self.lock:
        self.num_in_flight -= 1

  def _answer(self, handler, request, fault):
    key = handler.headers.get('Authorization', '').removeprefix('Bearer ')
    if fault is not None:
      time.sleep(fault.delay_secs)
      if fault.drop:
        handler.close_connection = True
        handler.connection.close()
        return
      if fault.raw:
        handler.close_connection = True
        for piece in fault.raw:
          handler.wfile.write(piece)
          handler.wfile.flush()
          time.sleep(fault.interval_secs)
        return
      self._send(handler, fault.status, fault.body, fault.headers)
    elif self.keys is not None and key not in self.keys:
      self._send(handler, 401, {'error': {'message': f'Incorrect API key provided: {key}'}}, {})
    elif handler.path.endswith('/models'):
      self._send(handler, 200, {'data': [{'id': name} for name in self.models]}, {})
    else:
      answer = self.answer(request)
      self._send(handler, 200, answer if isinstance(answer, dict) else chat_body(answer), {})

  @staticmethod
  def _send(handler, status, body, headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {'Content-Type': 'application/json', **headers}.items():
      handler.send_header(name, value)
    handler.send_header('Content-Length', str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)
    handler.wfile.flush()

  def close(self):
    self._server.shutdown()
    self._server.server_close()

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self.close()
