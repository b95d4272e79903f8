"""What a user sets for an endpoint beside the messages: keys from the environment, extra fields of a request."""

import json
import os
from collections.abc import Mapping
from typing import Any

from eijax.errors import UsageError

THINKING = ('default', 'on', 'off')
# They carry the talk itself; another value would make the results those of something else.
_OURS = ('messages', 'model', 'seed', 'stream')


def api_keys(variable: str) -> list[str]:
  """The comma-separated keys that an environment variable holds; none where it is not set."""
  return [key.strip() for key in os.environ.get(variable, '').split(',') if key.strip()]


def request_fields(thinking: str, extra_body: str, side: str) -> dict[str, Any]:
  """Further fields of every request to one side.

  Args:
    thinking: 'on' or 'off' sends the switch of the chat template that vLLM and SGLang
      know; 'default' sends nothing. Providers with a switch of their own need extra_body.
    extra_body: a JSON object; its fields win over all others.
    side: 'model' or 'simulator', for messages.
  Raises:
    UsageError: an unknown value, or no JSON object.
  """
  if thinking not in THINKING:
    raise UsageError(f'{side}_thinking={thinking!r} must be one of {", ".join(THINKING)}')
  try:
    extra = json.loads(extra_body)
  except (ValueError, RecursionError) as error:
    raise UsageError(f'{side}_extra_body={extra_body!r} must be a JSON object ({error}); e.g. \'{{"top_p": 0.9}}\'') from None
  if not isinstance(extra, Mapping):
    raise UsageError(f'{side}_extra_body={extra_body!r} must be a JSON object, e.g. \'{{"top_p": 0.9}}\'')
  taken = [name for name in _OURS if name in extra]
  if taken:
    raise UsageError(f'{side}_extra_body={extra_body!r} must not hold {taken[0]!r}: the protocol sets it; take it out')
  fields = {} if thinking == 'default' else {'chat_template_kwargs': {'enable_thinking': thinking == 'on'}}
  return fields | extra
