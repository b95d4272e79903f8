"""What the requests cost: tokens in and out, with a limit."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.chat.errors import BudgetSpent

# No request has more: a larger number is a fault of the endpoint.
_MOST_TOKENS = 10**8


def token_bound(text: str) -> int:
  """At most this many tokens for common tokenizers: ASCII characters / 3, the others x 1.5."""
  num_ascii = sum(char < '\x80' for char in text)
  return num_ascii // 3 + (3 * (len(text) - num_ascii) + 1) // 2 + 1


def messages_bound(messages: Sequence[Mapping[str, Any]]) -> int:
  """`token_bound` of a whole request, with some for the roles."""
  return sum(token_bound(str(message['content'])) + 8 for message in messages)


def counted(usage: Mapping[str, Any], name: str) -> int | None:
  """A count of tokens as the endpoint gave it; None where it is no sensible number."""
  value = usage.get(name)
  if isinstance(value, float) and value.is_integer():
    value = int(value)
  if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_TOKENS:
    return None
  return value


class UsageMeter:
  """Adds up what all requests of one role cost. Thread-safe; may be shared by several clients.

  Where an endpoint does not say what a request cost, an upper bound from the length of the
  text is counted, so that a limit holds with every endpoint.

  Args:
    max_tokens: prompt and completion tokens together after which no request is sent any
      more; None for no limit. Requests in flight may exceed it.
  """

  def __init__(self, max_tokens: int | None = None):
    if max_tokens is not None and max_tokens < 1:
      raise ValueError(f'max_tokens={max_tokens} must be >= 1, or None for no limit')
    self.max_tokens = max_tokens
    self._lock = threading.Lock()
    self._totals = {'requests': 0, 'retries': 0, 'prompt_tokens': 0, 'completion_tokens': 0, 'unknown_usage': 0}

  def add(self, messages: Sequence[Mapping[str, Any]], text: str, usage: Mapping[str, Any], retries: int) -> None:
    """Count one answered request. `text`: all that the model wrote, its reasoning included."""
    prompt, completion = counted(usage, 'prompt_tokens'), counted(usage, 'completion_tokens')
    unknown = prompt is None or completion is None
    if prompt is None:
      prompt = messages_bound(messages)
    if completion is None:
      completion = token_bound(text)
    self._count(
        requests=1, retries=retries, prompt_tokens=prompt, completion_tokens=completion, unknown_usage=int(unknown))

  def add_failed(self, retries: int) -> None:
    """Count a request that got no answer."""
    self._count(requests=1, retries=retries)

  def _count(self, **amounts: int) -> None:
    with self._lock:
      for name, amount in amounts.items():
        self._totals[name] += amount

  def check(self) -> None:
    """Raise BudgetSpent where the limit is reached."""
    if self.max_tokens is None:
      return
    totals = self.totals()
    spent = totals['prompt_tokens'] + totals['completion_tokens']
    if spent >= self.max_tokens:
      raise BudgetSpent(
          f'max_tokens={self.max_tokens} of the budget must exceed what is spent, and {spent} are; raise the limit to go on')

  def totals(self) -> dict[str, int]:
    """What was spent so far.

    Returns:
      requests (answered or given up), retries, prompt_tokens, completion_tokens, and
      unknown_usage: the requests among them whose tokens are an upper bound of ours.
    """
    with self._lock:
      return dict(self._totals)
