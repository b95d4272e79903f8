"""A comparison in words: lines for a terminal, and the same as Markdown."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.report.plain_text import clean_text, shorten
from eijax.report.wording import MISSING, count, signed
from eijax.report.text_tables import Table, markdown_text, to_markdown, to_text

_MAX_NAME_CHARS = 60
_MAX_LEFT_OUT = 40  # On a terminal; the files name all.
_LINE_CHARS = 110
_SMALLEST_P = 0.0001


def verdict(found: Mapping[str, Any]) -> str:
  """The overall finding, one or two sentences."""
  part, alpha = found['overall'], found['settings']['alpha']
  if part['n'] < 2:
    return 'One scenario in common: nothing can be said about a difference.'
  size = f'{abs(part["difference"]):.1f} points'
  if part['p_value'] < alpha:
    direction = 'higher' if part['difference'] > 0 else 'lower'
    return f'B is {direction} than A by {size} (p {p_words(part["p_value"])}).'
  if not part['detectable']:
    return f'No difference found: every scenario differs by the same {signed(part["difference"])} points (p {p_words(part["p_value"])}).'
  return (
      f'No difference found: {signed(part["difference"])} points, p {p_words(part["p_value"])}. '
      f'That is not proof of none: with {count(part["n"], "pair")} of this spread a true difference of '
      f'{part["detectable"]:.1f} points would be found in 80 % of cases.'
  )


def p_words(value: float | None) -> str:
  """A p value with its sign, `= 0.0123` or `< 0.0001`."""
  shown = p_value(value)
  return shown if shown == MISSING or shown.startswith('<') else f'= {shown}'


def p_value(value: float | None) -> str:
  """A p value for a table."""
  if value is None:
    return MISSING
  return f'< {_SMALLEST_P:.4f}' if value < _SMALLEST_P else f'{value:.4f}' if value < 0.1 else f'{value:.2f}'


def score_table(found: Mapping[str, Any]) -> Table:
  header = ['', 'pairs', 'A', 'B', 'B − A', '95 % interval', 'p', 'p (Holm)', 'effect size', 'won', 'tied', 'lost']
  parts = [('overall', found['overall']), *found['scenes'].items()]
  return Table(header=header, rows=[[name, *_cells(part)] for name, part in parts], num_left=1)


def _cells(part: Mapping[str, Any]) -> list[str]:
  low, high = part['ci95']
  return [
      str(part['n']), signed(part['score_a']), signed(part['score_b']), signed(part['difference']),
      MISSING if low is None else f'{signed(low)} to {signed(high)}',
      p_value(part['p_value']), p_value(part.get('p_holm')),
      signed(part['effect_size'], 2), *(share(part[name], part['n']) for name in ('wins', 'ties', 'losses')),
  ]


def share(number: int, total: int) -> str:
  return f'{100 * number / total:.0f} %' if total else MISSING


def moved_table(rows: Sequence[Mapping[str, Any]]) -> Table:
  header = ['scenario', 'scene', 'B − A', 'A', 'B', 'A ended with', 'B ended with']
  return Table(
      header=header, num_left=2,
      rows=[
          [
              _name(row['id']), row['scene'], signed(row['difference'], 0), signed(row['a']['score'], 0),
              signed(row['b']['score'], 0), _ending(row['a']), _ending(row['b']),
          ]
          for row in rows
      ],
  )


def _ending(talk: Mapping[str, Any]) -> str:
  state = ', '.join(f'{name} {value:.3g}' for name, value in talk['final'].items())
  endings = sorted(set(talk['ended_by']))
  return f'{state} ({"/".join(map(_name, endings))})'


def left_out_table(rows: Sequence[Mapping[str, Any]]) -> Table:
  return Table(
      header=['left out', 'side', 'sample', 'reason'], num_left=4,
      rows=[
          [_name(row['id']), row['side'], 'all' if row['sample'] is None else str(row['sample']), _name(row['reason'])]
          for row in rows
      ],
  )


def _name(value: Any) -> str:
  return shorten(clean_text(' '.join(str(value).split())), _MAX_NAME_CHARS)


def _notes(found: Mapping[str, Any]) -> list[str]:
  margin, num = found['settings']['tie_margin'], found['settings']['num_permutations']
  tie = 'equal scores' if margin == 0 else f'at most {margin:g} points apart'
  return [
      'Scores × 100. Each scenario counts once, with the mean of its samples. Intervals: bootstrap over scenarios. '
      f'p: two-sided sign-flip test over scenarios, exact where there are at most {num:,} sign patterns, else {num:,} '
      'drawn ones. Effect size: mean over standard deviation of the differences (d_z). '
      f'Tied: {tie}.',
      'The scenes are a family of tests: read p (Holm), which holds the chance of any false finding among them to 5 %. '
      'The overall test is one test and needs no such care.',
  ]


def _sides(found: Mapping[str, Any]) -> list[str]:
  lines = []
  for side in ('a', 'b'):
    about = found[side]
    failed = f', {about["failed"]} failed' if about['failed'] else ''
    simulator = _name(about['simulator']) if about['simulator'] is not None else 'not recorded'
    lines.append(f'{side.upper()}: {_name(about["model"])} ({count(about["n"], "talk")}{failed}; simulator {simulator})')
  return lines


def _wrapped(paragraph: str) -> list[str]:
  return textwrap.wrap(paragraph, _LINE_CHARS)


def text(found: Mapping[str, Any]) -> str:
  """For a terminal: what stands in the folders is stripped of control characters."""
  lines = [*(f'{line}, {clean_text(found[side]["folder"])}' for line, side in zip(_sides(found), 'ab')), '']
  lines += [line for warning in found['warnings'] for line in _wrapped(f'warning: {clean_text(warning)}')]
  lines += [''] * bool(found['warnings'])
  lines += [*_wrapped(verdict(found)), '', *to_text(score_table(found)), '']
  lines += [line for note in _notes(found) for line in _wrapped(note)]
  for title, rows in (('rose', found['moved']['up']), ('fell', found['moved']['down'])):
    if rows:
      lines += ['', f'Scenarios that {title} most from A to B', *to_text(moved_table(rows))]
  if found['left_out']:
    lines += ['', *to_text(left_out_table(found['left_out'][:_MAX_LEFT_OUT]))]
    if len(found['left_out']) > _MAX_LEFT_OUT:
      lines.append(f'... and {len(found["left_out"]) - _MAX_LEFT_OUT} more (all with --out or --json)')
  return '\n'.join(lines)


def markdown(found: Mapping[str, Any]) -> str:
  """The whole comparison as Markdown, every entry left out included."""
  lines = ['# B against A', '', *(f'- {markdown_text(line)}' for line in _sides(found)), '']
  lines += [f'- **Warning.** {markdown_text(clean_text(warning))}' for warning in found['warnings']]
  lines += [''] * bool(found['warnings']) + [f'**{markdown_text(verdict(found))}**', '', *to_markdown(score_table(found)), '']
  lines += [line for note in _notes(found) for line in (markdown_text(note), '')]
  for title, rows in (('rose', found['moved']['up']), ('fell', found['moved']['down'])):
    if rows:
      lines += [f'## Scenarios that {title} most', '', *to_markdown(moved_table(rows)), '']
  if found['left_out']:
    lines += ['## Left out', '', *to_markdown(left_out_table(found['left_out'])), '']
  return '\n'.join(lines)
