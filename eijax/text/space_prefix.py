"""The space that some tokenizers put before text, so that a first word is spelled like any other."""

import dataclasses

_SPACES = (' ', '▁')


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpacePrefix:
  """Where a space is put before a stretch of text.

  where: 'never'; 'first', at the start of a whole text only; or 'always', also after
    each control token.
  doubles: whether text that begins with a space gets another one.
  """

  where: str = 'never'
  doubles: bool = False

  def put(self, text: str, *, at_start: bool) -> str:
    """The text, with the space where it belongs; `at_start` means of the whole text."""
    wanted = self.where == 'always' or self.where == 'first' and at_start
    return ' ' + text if wanted and text and (self.doubles or not text.startswith(_SPACES)) else text

  def removed(self, text: str) -> str:
    """Decoded text without the space."""
    return text[1:] if self.where != 'never' and text.startswith(' ') else text
