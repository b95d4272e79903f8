"""Text of ids as they come, without characters that are not whole yet."""

from collections.abc import Sequence

from eijax.text.ports import Tokenizer

_PARTIAL = '\ufffd'
# The longest character has four bytes, one a piece at worst.
_LONGEST_WAIT = 4


class TextStream:
  """Decodes one response piece by piece.

  A character may take several ids, which show as U+FFFD until the last of them is there:
  text that ends so waits. What is given out is never taken back, and in all it is what
  `decode` gives for all ids.
  """

  def __init__(self, tokenizer: Tokenizer):
    self._tokenizer = tokenizer
    self._ids: list[int] = []
    self._given = ''

  def add(self, ids: Sequence[int]) -> str:
    """Take ids; returns the text that they complete."""
    self._ids += [int(index) for index in ids]
    return self._give(self._settled())

  def finish(self) -> str:
    """The rest; characters that were never completed show as U+FFFD."""
    return self._give(self._tokenizer.decode(self._ids))

  def _settled(self) -> str:
    text = self._tokenizer.decode(self._ids)
    waiting = len(text) - len(text.rstrip(_PARTIAL))
    return text[:len(text) - min(waiting, _LONGEST_WAIT)]

  def _give(self, text: str) -> str:
    new = text[len(self._given):]
    self._given += new
    return new
