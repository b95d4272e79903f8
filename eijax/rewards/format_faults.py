"""Find replies that are no speech: garbled, leaked reasoning, markdown, stuck in a template.

Source of the list: arXiv 2606.15532, section 4 (optional format penalty and hard veto).
"""

import difflib
import re
from collections.abc import Sequence

from eijax.episodes.state import Reply
from eijax.episodes.strip_think import EMPTY_REPLY

_MARKDOWN = re.compile(
    r'```|^\s{0,3}#{1,6}\s|^\s*[-*+•]\s+\S|^\s*\d+[.)、]\s+\S|\*\*[^*\n]+\*\*|^\s*\|.*\|\s*$', re.MULTILINE
)
# Talk about the task; wordings that a person in the scene would not use.
_LEAKED = re.compile(
    r'\b(?:the user (?:is|seems|wants|feels|sounds)|(?:system|user) prompt|as an ai\b|stay in character'
    r'|i (?:should|need to|must) (?:respond|reply|answer) (?:with|in a|by|gently|warmly|as)\b'
    r'|my (?:reply|response) (?:should|must))'
    r'|用户(?:似乎|现在|想要|感到)|我(?:应该|需要)(?:回复|回应|回答)|作为(?:一个)?(?:AI|人工智能)',
    re.IGNORECASE,
)
# Control and private-use characters, the replacement character, leftovers of a chat template.
_GARBLED = re.compile(
    r'[\x00-\x08\x0b-\x1f\x7f\ufffd\ue000-\uf8ff]|<\|[^|>\n]{1,40}\|>|(.)\1{9,}', re.DOTALL
)
_FINAL = re.compile(r'[.!?…。！？~～)）”"\'’」』]\s*\Z')
_MIN_TEMPLATE_RATIO = 0.9
_MIN_TEMPLATE_CHARS = 20


def _is_garbled(text: str) -> bool:
  return bool(_GARBLED.search(text))


def _is_unfinished(reply: Reply) -> bool:
  return reply.truncated or (reply.visible != EMPTY_REPLY and not _FINAL.search(reply.visible))


def _repeats(previous: str, text: str) -> bool:
  if min(len(previous), len(text)) < _MIN_TEMPLATE_CHARS:
    return previous == text
  matcher = difflib.SequenceMatcher(None, previous, text, autojunk=False)
  # The cheap upper bound spares most pairs the quadratic comparison.
  return (
      matcher.real_quick_ratio() >= _MIN_TEMPLATE_RATIO and matcher.ratio() >= _MIN_TEMPLATE_RATIO
  )


def turn_faults(replies: Sequence[Reply]) -> list[tuple[str, ...]]:
  """Name the format faults of each reply of one talk.

  `unfinished` and `repeated` count only for the second of two such replies in a row.

  Returns:
    for each reply, a tuple out of garbled, leaked_reasoning, markdown, unfinished,
    repeated; empty where it is sound.
  """
  faults = []
  for index, reply in enumerate(replies):
    found = []
    if _is_garbled(reply.visible):
      found.append('garbled')
    if _LEAKED.search(reply.visible):
      found.append('leaked_reasoning')
    if _MARKDOWN.search(reply.visible):
      found.append('markdown')
    if index:
      previous = replies[index - 1]
      if _is_unfinished(previous) and _is_unfinished(reply):
        found.append('unfinished')
      if _repeats(previous.visible, reply.visible):
        found.append('repeated')
    faults.append(tuple(found))
  return faults
