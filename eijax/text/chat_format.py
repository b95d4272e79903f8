"""Messages to token ids, one message at a time.

A context is the concatenation of its messages, so that a talk grows by appending
and what a policy sampled stays in the context as it was sampled.
"""

from collections.abc import Sequence

from eijax.text.tokenizer import END, ROLE_TOKENS, THINK_CLOSE, THINK_OPEN, Tokenizer


class ChatFormat:
  """`<|role|>` text `<|end|>` for each message."""

  def __init__(self, tokenizer: Tokenizer):
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

  def response(self, text: str) -> list[int]:
    """Ids of a demonstrated response, stop token included."""
    return [*self._tokenizer.encode(text), self._end]

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
