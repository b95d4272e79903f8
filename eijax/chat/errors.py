"""What can go wrong with a chat endpoint, one type for each remedy. No message holds a key."""

from eijax.errors import EijaxError


class ChatError(EijaxError):
  """A request that got no usable answer. `num_retries` counts what was tried in vain."""

  num_retries = 0

  @property
  def kind(self) -> str:
    """Name of the type, for counting failures."""
    return type(self).__name__


class Unauthorized(ChatError):
  """The endpoint refuses the key (401, 403); never retried."""


class Unreachable(ChatError):
  """No whole answer over the network: refused, no such host, dropped, cut off, too slow."""


class RateLimited(ChatError):
  """429 beyond the retries, an exhausted quota, or a wait too long to honour."""


class ContextTooLong(ChatError):
  """The messages exceed the context of the model, whatever max_tokens; the caller may shorten them.

  context_tokens, prompt_tokens: as the endpoint gave them, None where it gave none.
  """

  context_tokens: int | None = None
  prompt_tokens: int | None = None


class BadRequest(ChatError):
  """The endpoint refuses the request (another 4xx, a redirect); never retried."""


class ServerFailed(ChatError):
  """5xx beyond the retries."""


class BadAnswer(ChatError):
  """200, but no chat completion: HTML, broken JSON, no choices, endless."""


class Refused(ChatError):
  """The model or a filter of the provider declines to answer this very request."""


class Closed(ChatError):
  """The client was closed while the request waited."""


# These two are no failures of an endpoint: who handles those as outcomes of a talk must not meet them.


class BudgetSpent(EijaxError):
  """The tokens that the user allowed are spent; nothing more is sent."""


class NotRecorded(EijaxError):
  """A replay was asked for a request that its recording does not hold."""
