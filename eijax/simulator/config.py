"""Where the simulated user comes from, and how it is asked."""

import dataclasses

from eijax.chat.request_fields import request_fields
from eijax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatorConfig:
  """The user's side. No url: the embedded simulator, in a process of its own.

  max_attempts: answers asked for until one can be read. timeout_secs: longest silence
  of the endpoint. max_retries: tries after a network failure. concurrency: requests in flight.
  thinking: 'on' or 'off' asks the endpoint for it, 'default' leaves it alone. extra_body: JSON
  object with further fields of every request.
  """

  urls: tuple[str, ...] = ()
  model: str = 'eijax-embedded'
  temperature: float = 0.7
  max_tokens: int = 1024
  max_attempts: int = 8
  timeout_secs: float = 150.0
  max_retries: int = 8
  concurrency: int = 64
  thinking: str = 'default'
  extra_body: str = '{}'

  def __post_init__(self):
    for name in ('max_tokens', 'max_attempts', 'concurrency'):
      if getattr(self, name) < 1:
        raise UsageError(f'simulator {name}={getattr(self, name)} must be at least 1')
    if self.max_retries < 0 or not self.timeout_secs > 0 or not self.temperature >= 0:
      raise UsageError(f'simulator max_retries={self.max_retries} and temperature={self.temperature} must be at least 0, '
                       f'timeout_secs={self.timeout_secs} above 0')

    request_fields(self.thinking, self.extra_body, 'simulator')

  @property
  def embedded(self) -> bool:
    return not self.urls
