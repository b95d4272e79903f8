"""Errors of the chat API, in OpenAI's format."""

from typing import Any


class ApiError(Exception):
  """What a client is told instead of an answer.

  Args:
    status: of HTTP.
    message: names field, value, rule and remedy; holds no secret.
    param: the field of the request that is at fault.
    code: for programs, e.g. context_length_exceeded.
    retry_after_secs: when to come back, for 429 and 503.
  """

  def __init__(
      self, status: int, message: str, *, param: str | None = None, code: str | None = None,
      retry_after_secs: int | None = None,
  ):
    super().__init__(message)
    self.status, self.message, self.param, self.code = status, message, param, code
    self.headers = {} if retry_after_secs is None else {'Retry-After': str(retry_after_secs)}

  @property
  def body(self) -> dict[str, Any]:
    return error_body(self.status, self.message, self.param, self.code)


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
  kind = {401: 'authentication_error', 429: 'rate_limit_error'}.get(
      status, 'server_error' if status >= 500 else 'invalid_request_error')
  return {'error': {'message': message, 'type': kind, 'param': param, 'code': code}}
