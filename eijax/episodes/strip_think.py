"""Separate what was said from what was thought. Source: arXiv 2606.15532, section 2."""

import re

from eijax.episodes.state import Reply

EMPTY_REPLY = '...'

# A tag may lack its '>' (group 2 empty): it still ends or begins a thought, but is broken.
_TAG = re.compile(r'<[ \t]*(/?)[ \t]*think(?:ing)?\b(?![\w-])[ \t]*(/?>)?', re.IGNORECASE)
# A tag that the token limit cut in two: '<', '</', '<thi', '</thin'.
_CUT_TAG = re.compile(
    r'</?(t|th|thi|thin|think|thinki|thinkin|thinking)?\Z', re.IGNORECASE
)


def strip_think(raw: str, truncated: bool = False, opened: bool = False) -> Reply:
  """Split a response into thought and visible reply; a thought is never leaked.

  Think blocks go, an unclosed one up to the end of the text; stray closing tags go and
  their surroundings stay. A nested block belongs to the outer one. An empty visible
  reply becomes '...'.

  Args:
    raw: the decoded response.
    truncated: whether it met the token limit; recorded, and a tag cut in two is removed.
    opened: whether the prompt itself ended with an opening think tag.
  """
  text, broken = raw, False
  cut = _CUT_TAG.search(text)
  # Without truncation a '<' or '<t' at the end may be meant: it is no tag.
  if cut and (truncated or len(cut.group(1) or '') >= 2):
    text, broken = text[: cut.start()], True
  spoken, thoughts = [], []
  num_unclosed = 0
  position = 0
  inside = opened
  while position < len(text) or inside:
    if not inside:
      tag = _TAG.search(text, position)
      if tag is None:
        spoken.append(text[position:])
        break
      spoken.append(text[position : tag.start()])
      position = tag.end()
      if tag.group(1) or tag.group(2) == '/>':
        broken = True  # A stray closing tag.
        continue
      broken |= not tag.group(2)
    end, after, sound = _block_end(text, position)
    inside = False
    if end is None:
      num_unclosed += 1
      thoughts.append(text[position:])
      break
    broken |= not sound
    thoughts.append(text[position:end])
    position = after
  visible = ''.join(spoken).strip()
  # Zero-width characters alone are no reply.
  is_empty = not any(char.isprintable() and not char.isspace() for char in visible)
  thoughts = [_TAG.sub('', thought).strip() for thought in thoughts]
  closed = thoughts[: len(thoughts) - num_unclosed]
  return Reply(
      raw=raw,
      visible=EMPTY_REPLY if is_empty else visible,
      thought='\n'.join(thought for thought in thoughts if thought),
      has_thought=any(closed),
      malformed=bool(broken or num_unclosed or is_empty or not all(closed)),
      truncated=truncated,
  )


def _block_end(text: str, start: int) -> tuple[int | None, int, bool]:
  """Find the end of a think block whose opening tag ends at `start`.

  Returns:
    (end of the thought or None if the block is unclosed, start of what follows, whether
    all tags were sound).
  """
  depth, last, sound = 1, None, True
  for tag in _TAG.finditer(text, start):
    if tag.group(1):
      depth -= 1
      last = tag
      sound &= tag.group(2) == '>'
      if depth == 0:
        break
    else:
      depth += 1
      sound = False
  if last is None:
    return None, len(text), False
  # Thoughts that mention an opening tag leave the depth above 0: the last closing tag
  # is then the end, so that nothing of the thought is spoken.
  return last.start(), last.end(), sound
