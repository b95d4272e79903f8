"""A policy behind a chat endpoint: the model under test that is not ours to load."""

import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.chat.client import ChatClient, ChatResult
from eijax.chat.errors import ContextTooLong
from eijax.episodes.views import Message, with_user_turn
from eijax.rollouts.ports import PolicyReply, ReplyRequest


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointTurn:
  """What is known of one turn beside its text; the `sample` of its reply.

  finish_reason: of the endpoint; 'length' where the token limit ended the turn.
  max_tokens: the limit that was sent; lower than the one asked for where the context is short.
  num_dropped: earlier messages that the model was not shown for lack of context.
  usage: as the endpoint counts.
  """

  finish_reason: str
  max_tokens: int | None
  num_dropped: int
  retries: int
  latency_secs: float
  usage: Mapping[str, Any]


class EndpointPolicy:
  """Asks a chat endpoint for replies. Fills the Policy port.

  Where a talk outgrows the model's context the oldest rounds are left out, the role sheet
  never; the turn's `EndpointTurn` says so.

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
    messages, num_dropped = list(request.messages), 0
    while True:
      try:
        result = self._chat.complete(
            with_user_turn(messages), temperature=self._temperature, max_tokens=self._max_tokens,
            seed=request.seed, extra_body=self._extra_body,
        )
        break
      except ContextTooLong:
        shorter = without_oldest_round(messages)
        if shorter is None:
          raise
        num_dropped += len(messages) - len(shorter)
        messages = shorter
    return PolicyReply(
        text=_whole_text(result),
        truncated=result.finish_reason == 'length',
        sample=EndpointTurn(
            finish_reason=result.finish_reason, max_tokens=result.max_tokens, num_dropped=num_dropped,
            retries=result.retries, latency_secs=result.latency_secs, usage=result.usage,
        ),
    )


def _whole_text(result: ChatResult) -> str:
  """The response as of a model that writes its thoughts into the text."""
  if not result.reasoning:
    return result.text
  # A reasoning channel is a thought: the same tags as a model without one. Text that
  # stands there alone was never spoken.
  spoken = '' if result.from_reasoning else result.text
  return f'<think>\n{result.reasoning}\n</think>\n\n{spoken}'


def without_oldest_round(messages: Sequence[Message]) -> list[Message] | None:
  """Messages without the first lines after the role sheet, up to and with the first reply to them.

  None where only the role sheet and the line to be answered are left.
  """
  start = sum(message['role'] == 'system' for message in messages[:1])
  end = next((i for i, message in enumerate(messages) if i >= start and message['role'] == 'assistant'), None)
  if end is None:
    return None
  return [*messages[:start], *messages[end + 1 :]]
