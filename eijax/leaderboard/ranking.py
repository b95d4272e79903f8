"""The ranking as Markdown and CSV, and as rows for the page."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eijax.comparison.wording import p_value
from eijax.leaderboard.entries import Entry
from eijax.report.text_tables import Table, markdown_text, to_markdown, to_text
from eijax.report.wording import MISSING, signed
from eijax.scenarios.record import SCENES

PARTS = ('overall', *SCENES)
# What a spreadsheet would take for a formula.
_FORMULA_STARTS = ('=', '+', '-', '@', '\t')


def part_of(entry: Entry, part: str) -> Mapping[str, Any]:
  return entry.scores['overall'] if part == 'overall' else entry.scores['scenes'][part]


def mean_rounds(entry: Entry) -> float | None:
  finished = [len(row['turns']) for row in entry.rows if row['score'] is not None]
  return float(np.mean(finished)) if finished else None


def _table(entries: Sequence[Entry], intervals_of: Sequence[str] = PARTS) -> Table:
  header = ['rank', 'model', *PARTS, 'against the first', 'p (Holm)', 'talks', 'failed', 'rounds']
  rows = []
  for rank, entry in enumerate(entries, start=1):
    test = entry.against_first
    rounds = mean_rounds(entry)
    rows.append([
        str(rank), entry.label, *(_score(part_of(entry, part), part in intervals_of) for part in PARTS),
        MISSING if test is None else f'{signed(test.mean)}{_bounds(test.low, test.high)}',
        p_value(entry.p_adjusted),
        str(entry.scores['n']), str(entry.scores['failed']), MISSING if rounds is None else f'{rounds:.1f}',
    ])
  return Table(header=header, rows=rows, num_left=2)


def _score(part: Mapping[str, Any], has_bounds: bool) -> str:
  return signed(part['score']) + (_bounds(*part['ci95']) if has_bounds else '')


def _bounds(low: float | None, high: float | None) -> str:
  return '' if low is None else f' [{signed(low)}, {signed(high)}]'


NOTE = (
    'Mean score × 100 with its 95 % bootstrap interval over scenarios. Against the first: mean difference on the '
    'scenarios that both were scored on; p of a sign-flip test, adjusted (Holm) for the number of models.'
)


def to_lines(entries: Sequence[Entry]) -> list[str]:
  """For a terminal, which has no room for every interval."""
  return to_text(_table(entries, ('overall',)))


def markdown(entries: Sequence[Entry], title: str, warnings: Sequence[str]) -> str:
  lines = [f'# {markdown_text(title)}', '', *(f'- **Warning.** {markdown_text(warning)}' for warning in warnings)]
  return '\n'.join([*lines, *([''] if warnings else []), *to_markdown(_table(entries)), '', markdown_text(NOTE), ''])


def to_csv(entries: Sequence[Entry]) -> str:
  """Plain numbers, one row a model; empty where there is none."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  writer.writerow([
      'rank', 'model', 'simulator', 'folder',
      *(f'{part}{end}' for part in PARTS for end in ('', '_low', '_high', '_n')),
      'against_first', 'against_first_low', 'against_first_high', 'against_first_n', 'p_holm', 'talks', 'failed', 'rounds',
  ])
  for rank, entry in enumerate(entries, start=1):
    test = entry.against_first
    parts = [part_of(entry, part) for part in PARTS]
    writer.writerow([
        rank, *map(_cell, (entry.label, entry.evaluation.simulator or '', str(entry.evaluation.folder))),
        *(value for part in parts for value in (part['score'], *part['ci95'], part['n'])),
        *((test.mean, test.low, test.high, test.num) if test else ('',) * 4),
        entry.p_adjusted, entry.scores['n'], entry.scores['failed'], mean_rounds(entry),
    ])
  return out.getvalue()


def _cell(text: str) -> str:
  return f"'{text}" if text.startswith(_FORMULA_STARTS) else text
