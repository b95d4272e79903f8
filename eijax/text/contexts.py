"""Token contexts of a talk: what was sampled goes in as sampled, never re-encoded."""

from collections.abc import Mapping, Sequence

from eijax.errors import EijaxError
from eijax.text.chat_format import ChatFormat


class ContextTooLongError(EijaxError):
  """Not even the system message and the last line fit the policy's context."""


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
    own = iter(self._own)
    pieces = []
    for message in messages:
      if message['role'] == 'assistant':
        sampled = next(own, None)
        if sampled is None:
          raise ValueError(f'{len(self._own)} responses were recorded, but the talk has more')
        pieces.append(self._format.whole(sampled) if self._keep_thoughts else self._format.spoken(sampled, message['content']))
      else:
        pieces.append(self._format.message(message['role'], message['content']))
    if next(own, None) is not None:
      raise ValueError(f'{len(self._own)} responses were recorded, but the talk has fewer')
    ending = self._format.generation_prompt
    head, tail = pieces[:1], pieces[1:]
    while sum(map(len, head + tail)) + len(ending) > max_tokens:
      if len(tail) < 2:
        raise ContextTooLongError(
            f'the system message and the last line take {sum(map(len, head + tail)) + len(ending)} tokens, but a prompt '
            f'has at most {max_tokens}; raise the context length (spans) or shorten the scenario')
      tail = tail[2:] if len(tail) > 2 else tail[1:]  # A talk that the policy opened ends as a reply and its answer.
    return [index for piece in head + tail for index in piece] + ending
