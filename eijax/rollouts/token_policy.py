"""A local policy as a side of a talk: messages in, sampled token ids kept in lockstep."""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from eijax.errors import EijaxError
from eijax.rollouts.ports import PolicyReply, ReplyRequest
from eijax.text.contexts import TalkContext
from eijax.text.ports import ChatFormat


class Sampler(Protocol):
  """What samples token ids: today's batch sampler, or any engine with this face."""

  max_prompt_tokens: int

  def submit(self, prompts: Sequence[tuple[Sequence[int], int, str]]) -> list[Future]:
    """Futures of samples, for (prompt ids, seed, slot key)."""


class TokenPolicy:
  """Fills the Policy port with a tokenizer and a sampler.

  Each reply's `sample` is the sampler's own record of the turn, passed through
  untouched: the trainer learns from the very ids that were sampled.
  """

  def __init__(self, chat_format: ChatFormat, sampler: Sampler):
    self._format = chat_format
    self._sampler = sampler
    self._talks: dict[str, TalkContext] = {}

  def start_phase(self) -> None:
    """Forget all talks; the next ones may use any key."""
    self._talks.clear()

  def submit(self, requests: Sequence[ReplyRequest]) -> list[Future]:
    """Ask for one reply in each talk; a talk that fails gets a future that raises."""
    replies = [Future() for _ in requests]
    prompts, asked = [], []
    for request, reply in zip(requests, replies):
      talk = self._talks.setdefault(request.episode_key, TalkContext(self._format))
      try:
        prompt = talk.prompt(request.messages, self._sampler.max_prompt_tokens)
      except EijaxError as error:  # Too long, or refused by the template.
        reply.set_exception(error)
        continue
      prompts.append((prompt, request.seed, request.episode_key))
      asked.append((talk, reply))
    for (talk, reply), sampled in zip(asked, self._sampler.submit(prompts)):
      sampled.add_done_callback(lambda done, talk=talk, reply=reply: self._pass_on(done, talk, reply))
    return replies

  def _pass_on(self, sampled: Future, talk: TalkContext, reply: Future) -> None:
    if sampled.exception() is not None:
      reply.set_exception(sampled.exception())
      return
    sample = sampled.result()
    talk.record(sample.response_ids)
    reply.set_result(PolicyReply(
        text=self._format.decode(sample.response_ids), truncated=sample.truncated, sample=sample,
        thought_opened=self._format.thought_opened))
