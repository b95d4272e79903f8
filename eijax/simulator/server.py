"""The embedded simulator as an OpenAI-compatible HTTP service on loopback.

POST /v1/chat/completions, GET /v1/models, GET /healthz. For tests of clients it can
add latency and faults, both seeded by the request's content, so that a run with
faults is repeatable.
"""

import asyncio
import hashlib
import json
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web
import orjson

from eijax import http_loop, http_server
from eijax.http_loop import Problem
from eijax.simulator import faults as faults_lib
from eijax.simulator import misbehaviour
from eijax.simulator.embedded import EmbeddedSimulator, words
from eijax.simulator.prompts import PromptError

MODEL = 'eijax-embedded'
MAX_BODY_BYTES = http_loop.MAX_BODY_BYTES
PROCESSING_MS = 'openai-processing-ms'  # The header in which OpenAI's own endpoint says how long an answer took.


class Responder(Protocol):
  """What stands behind the endpoint."""

  def answer(self, messages: list[dict], seed: int | None) -> str:
    """Text of the answer; a ValueError says what is wrong with the request."""


class SimulatorServer(http_loop.LoopServer):
  """All connections on one event loop.

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
    self._turn = asyncio.Lock()
    super().__init__(host, port, api_key=api_key)
    words.load()  # Who sees the URL gets an answer in milliseconds.

  async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
    path = request.path.rstrip('/')
    if request.method == 'POST':
      body = await http_loop.read_body(request)
      if path != '/v1/chat/completions':
        raise Problem(404, f'no such path: {request.path}; POST goes to /v1/chat/completions')
      self._authorise(request)
      return await self._complete(request, body)
    if request.method != 'GET':
      raise Problem(501, f'no such method: {request.method}; there are GET and POST')
    if path in ('/healthz', '/v1/healthz'):
      return http_loop.json_response(200, {'status': 'ok'})
    self._authorise(request)
    if path == '/v1/models':
      return http_loop.json_response(
        200, {'object': 'list', 'data': [{'id': self.model, 'object': 'model', 'owned_by': 'eijax'}]}
      )
    raise Problem(
      404, f'no such path: {request.path}; there are GET /v1/models, GET /healthz and POST /v1/chat/completions'
    )

  def _authorise(self, request: web.BaseRequest) -> None:
    if not self.is_authorised(request):
      raise Problem(401, 'wrong or missing API key')

  async def _complete(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    arrived = time.monotonic()
    drawn = self.faults.draw(body)
    misbehaves = drawn.fault in faults_lib.FAULTS
    data = b''
    if not misbehaves:
      async with self._turn:
        data = self._answer(body, drawn)
        await asyncio.sleep(0)  # What is due goes out before the next one is worked on.
    # The work on an answer is part of the time that it takes.
    if (left_secs := arrived + drawn.delay_secs - time.monotonic()) > 0:
      await asyncio.sleep(left_secs)
    if misbehaves:
      return await misbehaviour.act_out(request, drawn.fault)
    return http_loop.bytes_response(200, data, {PROCESSING_MS: f'{1e3 * (time.monotonic() - arrived):.3f}'})

  def _answer(self, body: bytes, drawn: faults_lib.Drawn) -> bytes:
    """The body of a completion; raises Problem where the request is none."""
    try:
      request = _decode(body)
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
      is_again, first_seed = self.faults.first_seed(messages, seed)
      text = self.simulator.answer(messages, first_seed)
    except PromptError as error:
      raise Problem(400, str(error)) from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      reason = f'missing field {error}' if isinstance(error, KeyError) else str(error)
      raise Problem(400, f'not a chat completion request: {reason}') from None
    fault = drawn.fault
    if fault in faults_lib.ANSWER_FAULTS:
      if is_again:
        fault = None  # Clients ask again a few times only; one spoilt answer a line is enough to try them.
      else:
        text = self.faults.spoil(drawn, text, messages, seed)
    size = sum(len(str(message.get('content', ''))) for message in messages) // 4
    completion = {
      'id': f'chatcmpl-{hashlib.blake2b(body, digest_size=8).hexdigest()}',
      'object': 'chat.completion',
      'created': int(time.time()),
      'model': request.get('model', self.model),
      'choices': [
        {'index': 0, 'message': {'role': 'assistant', 'content': text}, 'finish_reason': 'stop'}
      ],
      'usage': {
        'prompt_tokens': size,
        'completion_tokens': len(text) // 4,
        'total_tokens': size + len(text) // 4,
      },
    }
    return faults_lib.dress(fault, completion)


def _decode(body: bytes) -> object:
  """JSON, a few times as fast as json alone; that reads what orjson refuses: NaN, and half a surrogate pair."""
  try:
    return orjson.loads(body)
  except ValueError:
    return json.loads(body)


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
