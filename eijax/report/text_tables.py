"""Small tables as text for a terminal and as Markdown."""

import dataclasses
import re
import unicodedata
from collections.abc import Sequence

# What CommonMark or a HTML-rendering viewer might take for markup.
_MARKUP = re.compile(r'([\\`*_{}\[\]<>&|#~$])')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """num_left: columns from the left that hold words and are set flush left; all others hold numbers."""

  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  num_left: int = 1


def to_text(table: Table) -> list[str]:
  """Lines of a table with aligned columns."""
  rows = [list(table.header), *map(list, table.rows)]
  widths = [max(_width(row[column]) for row in rows) for column in range(len(table.header))]
  lines = ['  '.join(_pad(cell, widths[place], place < table.num_left) for place, cell in enumerate(row)) for row in rows]
  return [line.rstrip() for line in [lines[0], '  '.join('-' * width for width in widths), *lines[1:]]]


def _pad(cell: str, width: int, is_left: bool) -> str:
  space = ' ' * (width - _width(cell))
  return cell + space if is_left else space + cell


def _width(text: str) -> int:
  """Columns of a terminal: wide characters take two, combining marks none."""
  return sum(
      0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in 'WF' else 1 for char in text
  )


def to_markdown(table: Table) -> list[str]:
  """Lines of a Markdown table; no cell can break out of it."""
  rule = ['---' if place < table.num_left else '--:' for place in range(len(table.header))]
  return [
      f'| {" | ".join(cells)} |'
      for cells in (list(map(markdown_text, table.header)), rule, *(list(map(markdown_text, row)) for row in table.rows))
  ]


def markdown_text(text: str) -> str:
  """The text on one line, so that Markdown shows it as it is."""
  return _MARKUP.sub(r'\\\1', ' '.join(text.split()))
