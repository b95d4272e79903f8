"""The embedded simulator as an OpenAI-compatible HTTP service on loopback.

POST /v1/chat/completions, GET /v1/models, GET /healthz. For tests of clients it can
add latency and faults, both seeded by the request's content, so that a run with
faults is repeatable.
"""

import contextlib
import hashlib
import json
import math
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

from eijax import http_server
from eijax.errors import SimulatorError
from eijax.simulator.embedded import EmbeddedSimulator
from eijax.simulator.prompts import PromptError

MODEL = 'eijax-embedded'
MAX_BODY_BYTES = http_server.JsonHandler.max_body_bytes
LATENCY_SIGMA = 0.5  # Of the log of the added delay.
FAULTS = ('rate_limited', 'server_error', 'reset', 'broken_body', 'broken_answer')
_START_TIMEOUT_SECS = 60.0
_MAX_COUNTED = 100_000


class Faults:
  """Draws a fault or a delay for a request: by its content and how often it came."""

  def __init__(self, *, seed: int, latency_secs: float, fault_rate: float):
    self._seed, self._latency_secs, self._fault_rate = seed, latency_secs, fault_rate
    self._lock = threading.Lock()
    self._attempts: dict[bytes, int] = {}

  def draw(self, body: bytes) -> tuple[float, str | None]:
    """Return (seconds to wait, fault name or None) for this arrival of a request."""
    if not self._latency_secs and not self._fault_rate:
      return 0.0, None
    digest = hashlib.blake2b(body, digest_size=16).digest()
    with self._lock:
      if len(self._attempts) >= _MAX_COUNTED:
        self._attempts.clear()
      attempt = self._attempts[digest] = self._attempts.get(digest, 0) + 1
    rng = random.Random(f'{self._seed}|{digest.hex()}|{attempt}')
    fault = rng.choice(FAULTS) if rng.random() < self._fault_rate else None
    if not self._latency_secs:
      return 0.0, fault
    mean_log = math.log(self._latency_secs) - LATENCY_SIGMA**2 / 2
    return rng.lognormvariate(mean_log, LATENCY_SIGMA), fault


class _Handler(http_server.JsonHandler):
  """One connection. The server object carries simulator, faults and key."""

  server_version = 'eijax-simulator'

  def do_GET(self) -> None:
    if self.path.rstrip('/') in ('/healthz', '/v1/healthz'):
      self.send_json(200, {'status': 'ok'})
    elif not self.is_authorised():
      self.send_problem(401, 'wrong or missing API key')
    elif self.path.rstrip('/') == '/v1/models':
      self.send_json(
        200, {'object': 'list', 'data': [{'id': MODEL, 'object': 'model', 'owned_by': 'eijax'}]}
      )
    else:
      self.send_problem(
        404,
        f'no such path: {self.path}; there are GET /v1/models, GET /healthz and POST /v1/chat/completions',
      )

  def do_POST(self) -> None:
    body = self.read_body()
    if body is None:
      return
    if self.path.rstrip('/') != '/v1/chat/completions':
      self.send_problem(404, f'no such path: {self.path}; POST goes to /v1/chat/completions')
      return
    if not self.is_authorised():
      self.send_problem(401, 'wrong or missing API key')
      return
    delay, fault = self.server.faults.draw(body)
    if delay:
      time.sleep(delay)
    if fault and self._fail(fault):
      return
    self._complete(body, broken=fault == 'broken_answer')

  def _complete(self, body: bytes, broken: bool) -> None:
    try:
      request = json.loads(body)
      messages = request['messages']
      if not isinstance(messages, list) or not all(
        isinstance(message, dict) for message in messages
      ):
        raise TypeError('messages must be a list of objects')
      if request.get('stream'):
        raise TypeError('stream=true is not served; ask without it')
      seed = request.get('seed')
      if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise TypeError(f'seed={seed!r} must be a whole number')
      text = self.server.simulator.answer(messages, seed)
    except PromptError as error:
      self.send_problem(400, str(error))
      return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      reason = f'missing field {error}' if isinstance(error, KeyError) else str(error)
      self.send_problem(400, f'not a chat completion request: {reason}')
      return
    if broken:
      text = text[: len(text) * 2 // 5]
    size = sum(len(str(message.get('content', ''))) for message in messages) // 4
    self.send_json(
      200,
      {
        'id': f'chatcmpl-{hashlib.blake2b(body, digest_size=8).hexdigest()}',
        'object': 'chat.completion',
        'created': int(time.time()),
        'model': request.get('model', MODEL),
        'choices': [
          {'index': 0, 'message': {'role': 'assistant', 'content': text}, 'finish_reason': 'stop'}
        ],
        'usage': {
          'prompt_tokens': size,
          'completion_tokens': len(text) // 4,
          'total_tokens': size + len(text) // 4,
        },
      },
    )

  def _fail(self, fault: str) -> bool:
    """Act out a fault; True if the request is finished with it."""
    if fault == 'rate_limited':
      self.send_problem(429, 'slow down (injected fault)', {'Retry-After': '0'})
    elif fault == 'server_error':
      self.send_problem(500, 'injected fault')
    elif fault == 'reset':
      # Linger 0 makes close() send RST, as a crashed peer would.
      self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
      self.close_connection = True
      self.connection.close()
    elif fault == 'broken_body':
      self.send_bytes(200, b'{"choices": [{"message": {"con')
    else:
      return False
    return True


class SimulatorServer(http_server.JsonServer):
  """One thread a connection. `url` is the base URL for clients."""

  def __init__(
    self,
    *,
    host: str = '127.0.0.1',
    port: int = 0,
    seed: int = 0,
    latency_secs: float = 0.0,
    fault_rate: float = 0.0,
    api_key: str | None = None,
  ):
    self.simulator = EmbeddedSimulator(seed)
    self.faults = Faults(seed=seed, latency_secs=latency_secs, fault_rate=fault_rate)
    super().__init__(host, port, _Handler, api_key=api_key)


def serve_until_stopped(server: SimulatorServer, *, follow_parent: bool = False) -> None:
  """Print the URL and serve until SIGTERM or SIGINT, or until the parent process is gone."""
  if follow_parent:
    threading.Thread(target=_watch_parent, args=(os.getppid(),), daemon=True).start()
  http_server.serve_until_stopped(server, server.url)


def _watch_parent(parent: int) -> None:
  """Leave at once when stdin closes or the parent changes: it may have been killed."""
  while os.getppid() == parent:
    ready, _, _ = select.select([sys.stdin], [], [], 1.0)
    if ready and not os.read(sys.stdin.fileno(), 4096):
      break
  os._exit(0)


@contextlib.contextmanager
def running_server(
  *, seed: int = 0, latency_secs: float = 0.0, fault_rate: float = 0.0
) -> Iterator[str]:
  """Serve in a process of its own and yield the base URL; it ends with the block or with us.

  An own process leaves this one's interpreter lock alone.

  Raises:
    SimulatorError: the process did not come up.
  """
  process = start_in_subprocess(seed=seed, latency_secs=latency_secs, fault_rate=fault_rate)
  try:
    yield process.url
  finally:
    process.stop()


class SimulatorProcess:
  """The server in a child process; `url` is its address, `stop` ends it.

  The child watches its stdin and its parent, and so dies with us even on SIGKILL.
  """

  def __init__(self, *, seed: int = 0, latency_secs: float = 0.0, fault_rate: float = 0.0):
    command = [
      sys.executable,
      '-m',
      'eijax.simulator',
      '--port=0',
      f'--seed={seed}',
      '--follow_parent',
      f'--latency_secs={latency_secs}',
      f'--fault_rate={fault_rate}',
    ]
    environment = dict(os.environ)
    # The child must find the same package as we, wherever it is started from.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment['PYTHONPATH'] = os.pathsep.join(filter(None, (root, environment.get('PYTHONPATH'))))
    # Its own session: a Ctrl-C in the terminal ends the trainer first, then, through stdin, the server.
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env=environment,
      start_new_session=True,
    )
    self.url = self._read_url()

  @property
  def pid(self) -> int:
    return self._process.pid

  @property
  def exit_code(self) -> int | None:
    return self._process.poll()

  def alive(self) -> bool:
    return self._process.poll() is None

  def stop(self) -> None:
    """End the child and wait for it; harmless when it is gone already."""
    if self._process.poll() is None:
      self._process.terminate()
      try:
        self._process.wait(timeout=5)
      except subprocess.TimeoutExpired:
        self._process.kill()
        self._process.wait()
    for pipe in (self._process.stdin, self._process.stdout):
      with contextlib.suppress(OSError):
        pipe.close()

  def _read_url(self) -> str:
    ready, _, _ = select.select([self._process.stdout], [], [], _START_TIMEOUT_SECS)
    line = self._process.stdout.readline().decode().strip() if ready else ''
    if not line.startswith('http'):
      self.stop()
      raise SimulatorError(
        f'the embedded simulator did not start within {_START_TIMEOUT_SECS:.0f} s (it said {line!r}); '
        'run `python -m eijax.simulator` by hand to see why'
      )
    return line


def start_in_subprocess(
  *, seed: int = 0, latency_secs: float = 0.0, fault_rate: float = 0.0
) -> SimulatorProcess:
  """Start the server in a child process and wait until it serves.

  Raises:
    SimulatorError: it did not come up.
  """
  return SimulatorProcess(seed=seed, latency_secs=latency_secs, fault_rate=fault_rate)
