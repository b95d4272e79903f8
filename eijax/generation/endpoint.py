"""The endpoint that writes: its client, with the key from the environment."""

import os
from collections.abc import Sequence

from eijax.chat.client import ChatClient
from eijax.errors import UsageError

KEY_VARIABLE = 'EIJAX_MODEL_API_KEY'


def open_client(
  urls: Sequence[str], model: str, *, timeout_secs: float, max_retries: int, concurrency: int
) -> ChatClient:
  """Open the client; nothing is sent yet. Raises UsageError where URL or model is missing or malformed."""
  for name, value in (('model_url', urls), ('model', model)):
    if not value:
      raise UsageError(f'--{name} must name an OpenAI-compatible endpoint and its model; give both flags')
  keys = [key.strip() for key in os.environ.get(KEY_VARIABLE, '').split(',') if key.strip()]
  return ChatClient(
    urls, model, api_keys=keys, timeout_secs=timeout_secs, max_retries=max_retries,
    concurrency=concurrency, key_variable=KEY_VARIABLE,
  )  # fmt: skip
