"""Judge an exchange: a completion, a failure that may pass, or one that will not."""

import dataclasses
import email.utils
import math
import time
from collections.abc import Callable

from eijax.chat import completion as completion_lib
from eijax.chat import errors
from eijax.chat.wire import Exchange

_PASSING_STATUS = frozenset((408, 409, 425, 429))
_CONTEXT_WORDS = (
    'context length', 'context_length', 'context window', 'context size', 'context limit', 'maximum context',
    'too many tokens', 'prompt is too long', 'input is too long', 'input length', 'reduce the length', 'max_model_len',
    'exceed_context_size', 'max_new_tokens` must be', 'range of input',
)
_FILTER_CODES = ('content_filter', 'content_policy', 'data_inspection_failed', 'responsibleaipolicyviolation', '1301')


class Passing(Exception):
  """A failure that may pass: what to raise if it does not, and the wait that was asked for."""

  def __init__(self, error: errors.ChatError, retry_after_secs: float | None = None):
    super().__init__(str(error))
    self.error = error
    self.retry_after_secs = retry_after_secs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
  """Words for failures. scrub: masks keys in what a provider says."""

  model: str
  key_variable: str
  scrub: Callable[[str], str]

  def completion(self, exchange: Exchange) -> completion_lib.Completion:
    """The answer of an exchange.

    Raises:
      Passing: asking again may help.
      ChatError: it will not.
    """
    self.check(exchange)
    try:
      return completion_lib.read_completion(exchange.body, exchange.headers.get('content-type', ''))
    except completion_lib.UnreadableBody as error:
      raise Passing(errors.BadAnswer(self.scrub(
          f'{exchange.url} answered, but not with a chat completion: {error}; check that the URL ends in /v1'
      ))) from None
    except completion_lib.Refusal as error:
      raise Passing(errors.Refused(self.scrub(
          f'{exchange.url} declines to answer: {error}; change the scenario or the model'
      ))) from None
    except completion_lib.ReportedError as error:
      if error.status:
        self._check_status(exchange, error.status, str(error))
      raise Passing(errors.ServerFailed(
          self.scrub(f'{exchange.url} reports an error: {error}; look at the provider')
      )) from None

  def check(self, exchange: Exchange) -> None:
    """Raise Passing or ChatError unless a whole answer with status 200 came."""
    if exchange.trouble:
      raise self._trouble(exchange)
    if exchange.status != 200:
      self._check_status(exchange, exchange.status, completion_lib.error_message(exchange.body))

  def _trouble(self, exchange: Exchange) -> Exception:
    url, reason = exchange.url, self.scrub(exchange.reason)
    if exchange.trouble == 'silent':
      return Passing(errors.Unreachable(
          f'{url} sent nothing for {reason}; raise the timeout, lower the concurrency, or look at the load of the server'
      ))
    if exchange.trouble == 'slow':
      return Passing(errors.Unreachable(
          f'{url} had not finished its answer after {reason}; raise the timeout or look at the load of the server'
      ))
    if exchange.trouble == 'too_large':
      return Passing(errors.BadAnswer(f'{url} answered with {reason}, which is no chat completion; check the URL'))
    if exchange.trouble == 'untrusted':
      return errors.Unreachable(
          f'{url} cannot be trusted ({reason}); mend its certificate or set REQUESTS_CA_BUNDLE')
    if exchange.trouble == 'broken_off':
      return Passing(errors.Unreachable(f'{url} broke off its answer ({reason}); look at the server and its proxies'))
    return Passing(errors.Unreachable(
        f'{url} cannot be reached ({reason}); check the URL and that the server runs'))

  def _check_status(self, exchange: Exchange, status: int, words: str) -> None:
    words = self.scrub(words)
    said = f'{exchange.url} answered {status}' + (f': {words}' if words else '')
    if status in (401, 403):
      raise self._unauthorized(exchange, status, words)
    code = completion_lib.error_fields(exchange.body)[0].lower()
    if status == 429:
      error = errors.RateLimited(f'{said}; lower the concurrency or add keys to {self.key_variable}')
      if 'insufficient_quota' in code:
        raise error  # Waiting does not fill an account.
      raise Passing(error, retry_after_secs(exchange))
    if status in _PASSING_STATUS or status >= 500:
      raise Passing(errors.ServerFailed(f'{said}; look at the log of the server'), retry_after_secs(exchange))
    everything = f'{code} {words}'.lower()
    if status == 400 and any(word in code for word in _FILTER_CODES):
      raise errors.Refused(f'{said}; a filter of the provider declines this request')
    if status in (400, 413, 422) and any(word in everything for word in _CONTEXT_WORDS):
      raise errors.ContextTooLong(f'{said}; lower max_tokens or use a model with a longer context')
    if 300 <= status < 400:
      raise errors.BadRequest(f'{said}, a redirect; give the URL that it leads to')
    raise errors.BadRequest(f'{said}; check the model name ({self.model}) and that the URL ends in /v1')

  def _unauthorized(self, exchange: Exchange, status: int, words: str) -> errors.Unauthorized:
    state = 'the key is refused' if exchange.keyed else 'no key was sent'
    said = f': {words}' if words else ''
    return errors.Unauthorized(
        f'{exchange.url} answered {status} ({state}){said}; '
        f'set {self.key_variable} to a key that this endpoint accepts'
    )


def retry_after_secs(exchange: Exchange) -> float | None:
  """The wait that a server asks for, None where it does not or cannot be read."""
  try:
    if 'retry-after-ms' in exchange.headers:
      secs = float(exchange.headers['retry-after-ms']) / 1000
    else:
      value = exchange.headers['retry-after']
      try:
        secs = float(value)  # By some providers with a fraction.
      except ValueError:
        secs = email.utils.mktime_tz(email.utils.parsedate_tz(value)) - time.time()
    return max(0.0, secs) if math.isfinite(secs) else None
  except (KeyError, TypeError, ValueError, OverflowError):
    return None  # Not a time: the usual back-off serves.
