"""The embedded simulator as an OpenAI-compatible HTTP service on loopback.

POST /v1/chat/completions, GET /v1/models, GET /healthz. For tests of clients it can
add latency and faults, both seeded by the request's content, so that a run with
faults is repeatable.
"""

import contextlib
import hashlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Protocol

from eijax import http_server
from eijax.errors import SimulatorError
from eijax.simulator import faults as faults_lib
from eijax.simulator.embedded import EmbeddedSimulator, words
from eijax.simulator.prompts import PromptError

MODEL = 'eijax-embedded'
MAX_BODY_BYTES = http_server.JsonHandler.max_body_bytes
PROCESSING_MS = 'openai-processing-ms'  # The header in which OpenAI's own endpoint says how long an answer took.
_START_TIMEOUT_SECS = 60.0


class Responder(Protocol):
  """What stands behind the endpoint."""

  def answer(self, messages: list[dict], seed: int | None) -> str:
    """Text of the answer; a ValueError says what is wrong with the request."""


class _Handler(http_server.JsonHandler):
  """One connection. The server object carries simulator, faults and key."""

  server_version = 'eijax-simulator'

  def do_GET(self) -> None:
    if self.path.rstrip('/') in ('/healthz', '/v1/healthz'):
      self.send(200, {'status': 'ok'})
    elif not self.is_authorised():
      self.send_problem(401, 'wrong or missing API key')
    elif self.path.rstrip('/') == '/v1/models':
      self.send(
        200, {'object': 'list', 'data': [{'id': self.server.model, 'object': 'model', 'owned_by': 'eijax'}]}
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
    arrived = time.monotonic()
    drawn = self.server.faults.draw(body)
    if drawn.delay_secs:
      time.sleep(drawn.delay_secs)
    if drawn.fault in faults_lib.FAULTS:
      faults_lib.act_out(self, drawn.fault)
    else:
      self._complete(body, drawn, arrived)

  def _complete(self, body: bytes, drawn: faults_lib.Drawn, arrived: float) -> None:
    faults = self.server.faults
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
      is_again, first_seed = faults.first_seed(messages, seed)
      text = self.server.simulator.answer(messages, first_seed)
    except PromptError as error:
      self.send_problem(400, str(error))
      return
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      reason = f'missing field {error}' if isinstance(error, KeyError) else str(error)
      self.send_problem(400, f'not a chat completion request: {reason}')
      return
    fault = drawn.fault
    if fault in faults_lib.ANSWER_FAULTS:
      if is_again:
        fault = None  # Clients ask again a few times only; one spoilt answer a line is enough to try them.
      else:
        text = faults.spoil(drawn, text, messages, seed)
    size = sum(len(str(message.get('content', ''))) for message in messages) // 4
    completion = {
      'id': f'chatcmpl-{hashlib.blake2b(body, digest_size=8).hexdigest()}',
      'object': 'chat.completion',
      'created': int(time.time()),
      'model': request.get('model', self.server.model),
      'choices': [
        {'index': 0, 'message': {'role': 'assistant', 'content': text}, 'finish_reason': 'stop'}
      ],
      'usage': {
        'prompt_tokens': size,
        'completion_tokens': len(text) // 4,
        'total_tokens': size + len(text) // 4,
      },
    }
    data = faults_lib.dress(fault, completion)
    self.send_bytes(200, data, {PROCESSING_MS: f'{1e3 * (time.monotonic() - arrived):.3f}'})


class SimulatorServer(http_server.JsonServer):
  """One thread a connection. `url` is the base URL for clients.

  responder: by default the embedded simulator; anything else with a face like its own.
  fault_names: faults that are drawn from.
  """

  def __init__(
    self,
    *,
    host: str = '127.0.0.1',
    port: int = 0,
    seed: int = 0,
    latency_secs: float = 0.0,
    fault_rate: float = 0.0,
    api_key: str | None = None,
    model: str = MODEL,
    responder: Responder | None = None,
    fault_names: Sequence[str] = tuple(faults_lib.ALL),
  ):
    self.model = model
    self.simulator = EmbeddedSimulator(seed) if responder is None else responder
    self.faults = faults_lib.Faults(
      seed=seed, latency_secs=latency_secs, fault_rate=fault_rate, names=fault_names
    )
    super().__init__(host, port, _Handler, api_key=api_key)
    words.load()  # Who sees the URL gets an answer in milliseconds.


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

  Args:
    module, arguments: another command that serves with the flags of eijax.simulator, and its own.
  """

  def __init__(
    self,
    *,
    seed: int = 0,
    latency_secs: float = 0.0,
    fault_rate: float = 0.0,
    module: str = 'eijax.simulator',
    arguments: Sequence[str] = (),
  ):
    command = [
      sys.executable,
      '-m',
      module,
      *arguments,
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
