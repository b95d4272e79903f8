"""What can go wrong with a chat endpoint, one type for each remedy. No message holds a key."""

from eijax.errors import EijaxError


class ChatError(EijaxError):
  """A request that got no usable answer. `num_retries` counts what was tried in vain."""

  num_retries = 0


class Unauthorized(ChatError):
  """The endpoint refuses the key (401, 403); never retried."""


class Unreachable(ChatError):
  """No answer over the network: refused, no such host, dropped, timed out."""


class RateLimited(ChatError):
  """429 beyond the retries, an exhausted quota, or a wait too long to honour."""


class ContextTooLong(ChatError):
  """The messages and max_tokens exceed the context of the model; never retried."""


class BadRequest(ChatError):
  """The endpoint refuses the request (another 4xx, a redirect); never retried."""


class ServerFailed(ChatError):
  """5xx beyond the retries."""


class BadAnswer(ChatError):
  """200, but no chat completion: HTML, broken JSON, no choices."""


class Closed(ChatError):
  """The client was closed while the request waited."""
