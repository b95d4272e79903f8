"""Token contexts of a talk: what was sampled goes in as sampled, never re-encoded."""

from collections.abc import Mapping, Sequence
import dataclasses

from eijax.errors import EijaxError
from eijax.text.ports import ChatFormat


class ContextTooLongError(EijaxError):
  """Not even the system message and the last line fit the policy's context."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstration:
  """One turn in token ids: what the policy saw, and what it should have said."""

  prompt_ids: list[int]
  response_ids: list[int]


class TalkContext:
  """The policy's side of one talk, in token ids.

  A prompt is built from chat messages; for the policy's own earlier messages the
  recorded ids are used. A talk that outgrows the limit loses its oldest rounds,
  the system message stays.

  Args:
    keep_thoughts: whether own earlier messages keep their thoughts.
  """

  def __init__(self, chat_format: ChatFormat, *, keep_thoughts: bool = False):
    self._format = chat_format
    self._keep_thoughts = keep_thoughts
    self._own: list[list[int]] = []

  def record(self, sampled: Sequence[int]) -> None:
    """Keep a response as sampled; it answers the last prompt."""
    self._own.append([int(i) for i in sampled])

  def prompt(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> list[int]:
    """Ids of the messages, with the generation prompt.

    Raises:
      ContextTooLongError: nothing more can be dropped.
      ValueError: other own messages than were recorded.
    """
    num_own = _num_own(messages)
    if num_own != len(self._own):
      relation = 'more' if num_own > len(self._own) else 'fewer'
      raise ValueError(f'{len(self._own)} responses were recorded, but the talk has {relation}')
    head, tail, own = list(messages[:1]), list(messages[1:]), self._own[num_own - _num_own(messages[1:]):]
    while len(ids := self._format.prompt(head + tail, own, keep_thoughts=self._keep_thoughts)) > max_tokens:
      if len(tail) < 2:
        raise ContextTooLongError(
            f'the system message and the last line take {len(ids)} tokens, but a prompt '
            f'has at most {max_tokens}; raise the context length (spans) or shorten the scenario')
      # A talk that the policy opened ends as a reply and its answer.
      dropped, tail = (tail[:2], tail[2:]) if len(tail) > 2 else (tail[:1], tail[1:])
      own = own[_num_own(dropped):]
    return ids


def _num_own(messages: Sequence[Mapping[str, str]]) -> int:
  return sum(message['role'] == 'assistant' for message in messages)
