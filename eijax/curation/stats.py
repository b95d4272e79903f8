"""Say what a set of scenarios holds: stats DIR [--out FOLDER].

Prints a summary; with --out also writes stats.json and stats.html, a page that needs nothing else.
"""

import functools
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from absl import flags

from eijax import jsonl
from eijax.curation import measures, records, similarity, stats_figures, vocabulary
from eijax.curation.records import Entry
from eijax.report import figures
from eijax.report.plain_text import clean_text
from eijax.scenarios.record import SCENES, SPLITS

JSON = 'stats.json'
PAGE = 'stats.html'
_PLURALS = {
  'theme': 'themes', 'situation': 'situations', 'relationship': 'relationships', 'setting': 'settings',
  'temper': 'tempers', 'intensity': 'intensities', 'personality': 'personalities', 'content_flags': 'content flags',
}  # fmt: skip


def define_flags(flag_values: flags.FlagValues) -> None:
  flags.DEFINE_string('out', None, f'Folder for {JSON} and {PAGE}.', flag_values=flag_values)
  flags.DEFINE_integer(
    'num_rows', 20, 'Rows of a table to print; the page shows five times as many.', lower_bound=1,
    flag_values=flag_values,
  )  # fmt: skip


def run(flag_values: flags.FlagValues, arguments: list[str]) -> None:
  """Print and write the measures of a folder.

  Raises:
    UsageError: no such folder.
    DataError: a broken record.
  """
  folder = records.only_folder(arguments, 'stats DIR [--out FOLDER]')
  entries = records.read_sound_set(folder)
  print(f'measuring {len(entries):,} scenarios', file=sys.stderr)
  measured = measures.measure(entries)
  print('\n'.join(summary(measured, flag_values.num_rows)))
  if flag_values.out:
    out = pathlib.Path(flag_values.out)
    jsonl.write_json(out / JSON, measured)
    jsonl.write_bytes(out / PAGE, page(folder.name, entries, measured, 5 * flag_values.num_rows).encode('utf-8'))
    print(f'\nwrote {out / JSON} and {out / PAGE}')


def summary(measured: Mapping[str, Any], num_rows: int) -> list[str]:
  """The measures as lines for a terminal."""
  lines = _columns([['scenarios', *SCENES, 'all']] + [
    [split, *(str(counts[scene]) for scene in SCENES), str(sum(counts.values()))]
    for split, counts in measured['counts'].items()
  ])
  lines += ['', *_columns([['lengths', 'mean', 'min', '5 %', 'median', '95 %', 'max']] + [
    [name, f'{values["mean"]:.1f}', *(f'{values[key]:.0f}' for key in ('min', 'p5', 'median', 'p95', 'max'))]
    for name, values in measured['lengths'][measures.ALL].items()
    if values
  ])]
  lines += ['', *_columns([vocabulary_header()] + [
    [name, *vocabulary_row(values)] for name, values in measured['vocabulary'].items()
  ])]
  levels = [f'>= {level:g}' for level in measures.LEVELS]
  lines += ['', *_columns([['pairs of users\' sheets', 'highest Jaccard', *levels]] + [
    [name, f'{values["highest"]:.3f}', *(str(number) for number in values['pairs_from'].values())]
    for name, values in measured['near_copies'].items()
  ])]
  for key, table in measured['tables'].items():
    if key != 'situation':  # Sentences: their number says it.
      lines += ['', *_columns([[f'{len(table)} {_PLURALS[key]}', *SCENES, 'all']] + [
        ['different ones', *(
          str(sum(counts[scene] > 0 for counts in table.values())) for scene in SCENES
        ), str(len(table))]
      ] + [
        [f'  {value[:60]}', *(str(counts[scene] or '.') for scene in SCENES), str(sum(counts.values()))]
        for value, counts in list(table.items())[:num_rows]
      ])]
      if len(table) > num_rows:
        lines.append(f'... and {len(table) - num_rows} more')
    else:
      lines += ['', f'{len(table)} situations']
  return lines


def vocabulary_header() -> list[str]:
  return [
    'vocabulary', 'words', 'different', 'stems', 'once', f'in {vocabulary.SAMPLE:,} words',
    f'MATTR({vocabulary.WINDOW})',
  ]  # fmt: skip


def vocabulary_row(values: Mapping[str, Any]) -> list[str]:
  sample, mattr = values['types_in_sample'], values['mattr']
  return [
    *(f'{values[key]:,}' for key in ('tokens', 'types', 'stems', 'once')),
    '-' if sample is None else f'{sample:,}',
    '-' if mattr is None else f'{mattr:.3f}',
  ]


def page(name: str, entries: Sequence[Entry], measured: Mapping[str, Any], num_rows: int) -> str:
  """The measures as one HTML page; the same set gives the same bytes."""
  words = {
    scene: [
      len(similarity.tokens(entry.scenario.aggressor_prompt)) for entry in entries if entry.scenario.scene == scene
    ]
    for scene in SCENES
  }
  return _environment().get_template('stats.html.j2').render(
    name=name, measured=measured, num_rows=num_rows, total=len(entries), scenes=SCENES, splits=SPLITS,
    plurals=_PLURALS, levels=measures.LEVELS, palette=figures.PALETTE,
    vocabulary_header=vocabulary_header(),
    vocabulary_rows=[(part, vocabulary_row(values)) for part, values in measured['vocabulary'].items()],
    figures={
      'anchors': stats_figures.anchors_figure(measured['anchors']),
      'closeness': stats_figures.closeness_figure(measured['near_copies']),
      'lengths': stats_figures.lengths_figure(words),
    },
  )  # fmt: skip


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
    # The page has the style sheet of the run report.
    loader=jinja2.ChoiceLoader([
      jinja2.PackageLoader('eijax.curation', 'templates'), jinja2.PackageLoader('eijax.report', 'templates'),
    ]),
    autoescape=True,
    finalize=lambda value: clean_text(value) if type(value) is str else value,  # pylint: disable=unidiomatic-typecheck
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )  # fmt: skip


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a table: names to the left, numbers to the right."""
  widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
  return [
    '  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
    for row in rows
  ]
