"""Control tokens in rendered text: found where the template wrote them, never where a message spells them.

A template gives one string, in which `<|im_end|>` of the template and `<|im_end|>` of a
message look alike. So a message is marked before it is rendered: an invisible mark goes
into every spelling of a control token, and to an edge that could complete one together
with its surroundings. What is then still spelled whole is the template's. The marks go
before the text between control tokens is encoded, so the policy reads the message as it was.
"""

from collections.abc import Iterable, Sequence
import re

from eijax.text.hf_files import DeclaredToken

# Where marks are taken from: a plane of Unicode that no text uses, after the code points that others use as marks.
_MARKS = range(0xF1000, 0xFFFFD)


class ControlTokens:
  """The tokens of a vocabulary that only a template or the policy may write.

  Attributes:
    ids: text -> id.
  """

  def __init__(self, tokens: Iterable[DeclaredToken]):
    tokens = sorted(tokens, key=lambda token: -len(token.text))  # The longest of several wins.
    self.ids = {token.text: token.id for token in tokens}
    self._anywhere = re.compile('|'.join(re.escape(token.text) for token in tokens) or '(?!)')
    self._written = re.compile('|'.join(f'(?:{_pattern(token)})' for token in tokens) or '(?!)')
    self._ends = {text[:length] for text in self.ids for length in range(1, len(text))}
    self._starts = {text[length:] for text in self.ids for length in range(1, len(text))}
    self._reach = max(map(len, self.ids), default=1) - 1

  def split(self, text: str) -> list[str | int]:
    """Ids of control tokens and the stretches of text between them, in order."""
    parts: list[str | int] = []
    position = 0
    for match in self._written.finditer(text):
      parts += [text[position:match.start()], self.ids[_bare(match.group(), self.ids)]]
      position = match.end()
    return [part for part in (*parts, text[position:]) if part != '']

  def marked(self, text: str, mark: str) -> str:
    """The text with a mark wherever it spells a control token or could complete one at an edge.

    Edges are looked at without their whitespace, which a template may trim. Overlapping
    spellings are broken too.
    """
    places = set()
    start = 0
    while match := self._anywhere.search(text, start):
      places.add(match.start() + 1)
      start = match.start() + 1
    left, right = len(text) - len(text.lstrip()), len(text.rstrip())
    bare = text[left:right]
    if any(bare[:length] in self._starts for length in range(1, min(self._reach, len(bare)) + 1)):
      places.add(left)
    if any(bare[-length:] in self._ends for length in range(1, min(self._reach, len(bare)) + 1)):
      places.add(right)
    for place in sorted(places, reverse=True):
      text = text[:place] + mark + text[place:]
    return text


def _pattern(token: DeclaredToken) -> str:
  pattern = re.escape(token.text)
  if token.single_word:
    pattern = rf'(?<!\w){pattern}(?!\w)'
  return (r'\s*' if token.lstrip else '') + pattern + (r'\s*' if token.rstrip else '')


def _bare(matched: str, ids: dict[str, int]) -> str:
  """The token within the whitespace that it took."""
  return next(text for text in (matched, matched.strip(), matched.lstrip(), matched.rstrip()) if text in ids)


def unused_marks(texts: Sequence[str], num: int) -> list[str]:
  """Characters that no text has."""
  used = set().union(*map(set, texts)) if texts else set()
  marks: list[str] = []
  for code in _MARKS:
    if chr(code) not in used:
      marks.append(chr(code))
      if len(marks) == num:
        break
  return marks
