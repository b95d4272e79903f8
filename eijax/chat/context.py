"""How many tokens an endpoint has room for, read from its complaint.

There is no common form: each server words it differently, and the forms below are those of the
common ones. What is read is only used to ask again with less, so a misreading costs a request.
"""

import dataclasses
import re

_NUMBER = r'\(?\[?\s*([\d,_]{1,9})\b'
# The model's whole window.
_CONTEXT = (
    rf'(?:maximum |max_)?context (?:length|window|size)(?: limit)?(?: of the model)?(?: is| of|:)?(?: only)? ?{_NUMBER}',
    rf'context limit: \d+ \+ \d+ > {_NUMBER}',
    rf'tokens > {_NUMBER} maximum',
    rf'must be <= {_NUMBER}',
    rf'max_model_len\D{{0,12}}{_NUMBER}',
)
# What the messages alone take.
_PROMPT = (
    rf'{_NUMBER} (?:tokens )?(?:in|from) (?:the |your )?(?:messages|prompt|input)',
    rf'(?:passed|has|given:|contains|with(?: at least)?) {_NUMBER} `?(?:input|inputs|prompt)`? ?tokens',
    rf'{_NUMBER} `?inputs?`? tokens',
    rf'context limit: {_NUMBER} \+',
    rf'prompt is too long: {_NUMBER}',
    rf'request \({_NUMBER} tokens\)',
)
# The most that max_tokens may be, whatever the messages.
_CAP = (
    rf'at most {_NUMBER} (?:completion|output) tokens',
    rf'(?:range of|valid range of) `?max_(?:completion_)?tokens`?[^\[]{{0,20}}\[\s*\d+\s*,\s*([\d,_]{{1,9}}?)\s*\]',
    r'max_(?:completion_)?tokens\W*(?:must|should|cannot|can not|may)\D{0,30}?'
    rf'(?:less than(?: or equal to)?|at most|exceed|more than|<=|below|between \d+ and)\W*{_NUMBER}',
    rf'max_(?:completion_)?tokens: \d+ > {_NUMBER}',
)


@dataclasses.dataclass(frozen=True)
class Room:
  """Numbers of tokens in a complaint, None where it has none."""

  context: int | None
  prompt: int | None
  cap: int | None


def _first(patterns: tuple[str, ...], words: str) -> int | None:
  for pattern in patterns:
    if found := re.search(pattern, words, re.I):
      return int(found.group(1).replace(',', '').replace('_', '') or 0)
  return None


def read_room(words: str) -> Room:
  """Read a complaint about the length of a request."""
  return Room(context=_first(_CONTEXT, words), prompt=_first(_PROMPT, words), cap=_first(_CAP, words))


def shrunk(room: Room, max_tokens: int, least: int) -> int | None:
  """A smaller max_tokens that should fit; None where the messages leave no room for `least`.

  Without numbers in the complaint: half.
  """
  if room.context is not None and room.prompt is not None:
    fits = room.context - room.prompt
  elif room.cap is not None:
    fits = room.cap
  else:
    fits = max_tokens // 2
  if fits >= max_tokens:  # They count differently from what they say.
    fits = max_tokens // 2
  return fits if fits >= least else None
