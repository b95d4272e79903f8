"""A policy as an OpenAI-compatible HTTP service.

POST /v1/chat/completions (also streaming), GET /v1/models, GET /v1/models/NAME, GET /healthz.
"""

import json
import time
from typing import Any
import urllib.parse

from eijax import http_server
from eijax.serving import answers
from eijax.serving.api_errors import ApiError, error_body
from eijax.serving.chat_request import ChatRequest, parse
from eijax.serving.chat_service import Answer, ChatService, ClientLeft

# An answer that is cut short at the end still has to be told so.
_LAST_WORDS_SECS = 2.0


class _Handler(http_server.JsonHandler):
  """One connection. The server object carries service and key."""

  server_version = 'eijax'
  max_body_bytes = 4 << 20
  timeout = 600  # Seconds that a client may be silent, or not read, before its connection is closed.

  def error_body(self, status: int, message: str) -> object:
    return error_body(status, message)

  def do_GET(self) -> None:
    path = urllib.parse.urlsplit(self.path).path.rstrip('/')
    service, created = self.server.service, self.server.created
    if path in ('/healthz', '/v1/healthz'):
      status = 'shutting down' if service.draining else 'ok'
      self.send(503 if service.draining else 200, {'status': status, 'open': service.num_open, 'max_open': service.max_open})
    elif not self.is_authorised():
      self._refuse(_wrong_key())
    elif path == '/v1/models':
      self.send(200, answers.models(service.served.name, created))
    elif path == f'/v1/models/{service.served.name}' or urllib.parse.unquote(path) == f'/v1/models/{service.served.name}':
      self.send(200, answers.model(service.served.name, created))
    elif path.startswith('/v1/models/'):
      self._refuse(ApiError(404, f'no such model; there is {service.served.name!r}', param='model', code='model_not_found'))
    else:
      self._refuse(_no_such_path())

  def do_POST(self) -> None:
    body = self.read_body()
    if body is None:
      return
    try:
      # The key first: who has none learns nothing else.
      if not self.is_authorised():
        raise _wrong_key()
      if urllib.parse.urlsplit(self.path).path.rstrip('/') != '/v1/chat/completions':
        raise _no_such_path()
      self._complete(body)
    except ApiError as error:
      self._refuse(error)
    except ClientLeft:
      self.close_connection = True

  def _refuse(self, error: ApiError) -> None:
    if error.status == 503:
      self.close_connection = True
    self.send(error.status, error.body, error.headers)

  def _complete(self, body: bytes) -> None:
    service = self.server.service
    served = service.served
    request = parse(body, defaults=served.sampling, thinking=served.thinking, max_choices=service.max_open)
    common = answers.head(served.name, stream=request.stream)
    with service.begin(request) as answer:
      if request.stream:
        self._stream(common, request, answer)
        return
      choices = answers.choices(answer.deltas(self.peer_has_left), request.n, request.logprobs)
      self.send(200, {**common, 'choices': choices, 'usage': answers.usage(answer.prompt_tokens, answer.completion_tokens)})

  def _stream(self, common: dict[str, Any], request: ChatRequest, answer: Answer) -> None:
    """Send an answer as events; a failure before the first token is still an ordinary error."""
    if request.include_usage:
      common = {**common, 'usage': None}
    begun = False
    try:
      for delta in answer.deltas(self.peer_has_left):
        if not begun:
          self.begin_events()
          self._event(answers.first_chunk(common, request.n))
          begun = True
        for chunk in answers.chunks(common, delta, request.logprobs):
          self._event(chunk)
    except ApiError as error:
      if not begun:
        raise
      self._event(error.body)
    else:
      if request.include_usage:
        self._event({**common, 'choices': [], 'usage': answers.usage(answer.prompt_tokens, answer.completion_tokens)})
      self.send_event('[DONE]')
    self.end_events()

  def _event(self, payload: object) -> None:
    self.send_event(json.dumps(payload, ensure_ascii=False))


def _wrong_key() -> ApiError:
  return ApiError(401, 'wrong or missing API key; send it as "Authorization: Bearer KEY"', code='invalid_api_key')


def _no_such_path() -> ApiError:
  return ApiError(404, 'no such path; there are POST /v1/chat/completions, GET /v1/models and GET /healthz', code='not_found')


class PolicyServer(http_server.JsonServer):
  """Answers for a ChatService. With listen=False the port is taken, and `server_activate` opens it."""

  def __init__(self, host: str, port: int, *, api_key: str | None, listen: bool = True):
    self.service: ChatService | None = None
    self.created = int(time.time())
    super().__init__(host, port, _Handler, api_key=api_key, listen=listen)

  def end(self, close_engine, drain_secs: float) -> None:
    """Let open answers finish within drain_secs, refuse new ones meanwhile, then cut short what is left."""
    if not self.service.drain(drain_secs):
      close_engine()
      self.service.drain(_LAST_WORDS_SECS)
