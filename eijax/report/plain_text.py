"""Make any text safe and readable on a page: no controls, no direction tricks, no floods."""

import re
import unicodedata

# Explicit directions can make a line read as something else than it says; so can tag
# characters and invisible ones. The joiners U+200C and U+200D stay: scripts and emoji need them.
_INVISIBLE = re.compile(
    '[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff'
    '\ufff9-\ufffb\U000e0000-\U000e0fff]+'
)
_CONTROL = re.compile('[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]')
_LINE_BREAK = re.compile('\r\n|[\r\x85\u2028\u2029]')
_SURROGATE = re.compile('[\ud800-\udfff]')
_MAX_MARKS = 3


def clean_text(text: str) -> str:
  """Show what hides: controls as pictures or codes, invisible and direction characters as codes.

  Piles of combining marks are cut to three, so that a line cannot draw over its neighbours.
  Line breaks and tabs stay. HTML is not escaped here; that is the template's part.
  """
  if text.isascii() and text.isprintable():
    return text  # Most texts of a large page; each pattern below looks for something else.
  text = _SURROGATE.sub('\ufffd', text)
  text = _LINE_BREAK.sub('\n', text)
  text = _INVISIBLE.sub(lambda match: f'[U+{ord(match.group()[0]):04X}]', text)
  text = _CONTROL.sub(lambda match: _picture(match.group()), text)
  return _without_piles(text)


def _picture(control: str) -> str:
  code = ord(control)
  if code < 0x20:
    return chr(0x2400 + code)
  return '\u2421' if code == 0x7F else f'[U+{code:04X}]'


def _without_piles(text: str) -> str:
  if text.isascii():
    return text
  kept = []
  num_marks = 0
  for char in text:
    num_marks = num_marks + 1 if unicodedata.category(char) in ('Mn', 'Me') else 0
    if num_marks <= _MAX_MARKS:
      kept.append(char)
  return ''.join(kept)


def shorten(text: str, max_chars: int) -> str:
  """Cut a long text and say how much is missing."""
  if len(text) <= max_chars:
    return text
  return f'{text[:max_chars].rstrip()} … [{len(text) - max_chars:,} more characters]'
