"""Messages to token ids in our own format, one message at a time.

A context is the concatenation of its messages, so that a talk grows by appending
and what a policy sampled stays in the context as it was sampled.
"""

from collections.abc import Mapping, Sequence
import re
from typing import Protocol

from eijax.text.pieces import END, ROLE_TOKENS, THINK_CLOSE, THINK_OPEN

_THOUGHT = re.compile(rf'\s*{THINK_OPEN}(.*?){THINK_CLOSE}', re.DOTALL)


class _ControlledTokenizer(Protocol):

  def control_id(self, piece: str) -> int:
    ...

  def encode(self, text: str) -> list[int]:
    ...

  def decode(self, ids: Sequence[int]) -> str:
    ...


class ChatFormat:
  """`<|role|>` text `<|end|>` for each message."""

  thought_opened = False

  def __init__(self, tokenizer: _ControlledTokenizer):
    self._tokenizer = tokenizer
    self._roles = {role: tokenizer.control_id(piece) for role, piece in ROLE_TOKENS.items()}
    self._end = tokenizer.control_id(END)
    self._think = (tokenizer.control_id(THINK_OPEN), tokenizer.control_id(THINK_CLOSE))

  @property
  def stop_ids(self) -> tuple[int, ...]:
    """Ids that end a response."""
    return (self._end,)

  @property
  def generation_prompt(self) -> list[int]:
    """Ids after which the policy speaks."""
    return [self._roles['assistant']]

  def message(self, role: str, text: str) -> list[int]:
    """Ids of a whole message; its text cannot become control tokens."""
    return [self._roles[role], *self._tokenizer.encode(text), self._end]

  def prompt(
      self, messages: Sequence[Mapping[str, str]], own: Sequence[Sequence[int] | None] | None = None, *, keep_thoughts: bool = False
  ) -> list[int]:
    """Ids of the messages with the generation prompt; see `eijax.text.ports`."""
    sampled_ids = iter(own if own is not None else [None] * len(messages))
    result = []
    for message in messages:
      sampled = next(sampled_ids) if message['role'] == 'assistant' else None
      if sampled is None:
        result += self.message(message['role'], message['content'])
      else:
        result += self.whole(sampled) if keep_thoughts else self.spoken(sampled, message['content'])
    return result + self.generation_prompt

  def response(self, text: str) -> list[int]:
    """Ids of a demonstrated response, stop token included; a thought at its head gets the think tags."""
    thought = _THOUGHT.match(text)
    if thought is None:
      return [*self._tokenizer.encode(text), self._end]
    opening, closing = self._think
    rest = text[thought.end():]
    return [opening, *self._tokenizer.encode(thought.group(1)), closing, *self._tokenizer.encode(rest), self._end]

  def spoken(self, sampled: Sequence[int], visible: str) -> list[int]:
    """Ids of an own earlier message: the sampled ids of its visible part.

    Args:
      sampled: response ids as sampled, with or without the stop token.
      visible: the text that the other side saw; encoded anew only where it is not
        the text of a tail of the sampled ids (a placeholder, broken think tags).
    """
    ids = [int(i) for i in sampled if int(i) != self._end]
    if self._think[1] in ids:
      ids = ids[len(ids) - ids[::-1].index(self._think[1]):]
    if not set(ids) & set(self._think) and self._tokenizer.decode(ids).strip() == visible.strip():
      return [self._roles['assistant'], *ids, self._end]
    return self.message('assistant', visible)

  def whole(self, sampled: Sequence[int]) -> list[int]:
    """Ids of an own earlier message as sampled, thoughts included."""
    return [self._roles['assistant'], *(int(i) for i in sampled if int(i) != self._end), self._end]

  def decode(self, sampled: Sequence[int]) -> str:
    """Text of a response."""
    return self._tokenizer.decode(sampled)
