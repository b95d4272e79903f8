"""A policy behind a chat endpoint: the model under test that is not ours to load."""

import concurrent.futures
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.chat.client import ChatClient
from eijax.episodes.views import with_user_turn
from eijax.rollouts.ports import PolicyReply, ReplyRequest


class EndpointPolicy:
  """Asks a chat endpoint for replies. Fills the Policy port.

  Args:
    chat: its worker threads bound the requests in flight.
    extra_body: further fields of every request (top_p, provider settings).
  """

  def __init__(
      self, chat: ChatClient, *, temperature: float, max_tokens: int, extra_body: Mapping[str, Any] | None = None
  ):
    self._chat = chat
    self._temperature = temperature
    self._max_tokens = max_tokens
    self._extra_body = extra_body

  def submit(
      self, requests: Sequence[ReplyRequest]
  ) -> 'list[concurrent.futures.Future[PolicyReply]]':
    return [self._chat.pool.submit(self._reply, request) for request in requests]

  def _reply(self, request: ReplyRequest) -> PolicyReply:
    result = self._chat.complete(
        with_user_turn(request.messages), temperature=self._temperature, max_tokens=self._max_tokens,
        seed=request.seed, extra_body=self._extra_body,
    )
    text = result.text
    if result.reasoning:
      # A reasoning channel is a thought: the same tags as a model without one. Text that
      # stands there alone was never spoken.
      spoken = '' if result.from_reasoning else text
      text = f'<think>\n{result.reasoning}\n</think>\n\n{spoken}'
    return PolicyReply(text=text, truncated=result.finish_reason == 'length')
