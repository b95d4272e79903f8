"""Write leaderboard.md, leaderboard.csv and leaderboard.html, a page that needs nothing else."""

import base64
import functools
import hashlib
import importlib.resources
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from eijax import jsonl
from eijax.comparison.wording import p_value
from eijax.leaderboard import curves, entries as entries_lib, failure_modes, ranking, transcripts
from eijax.leaderboard.entries import Entry
from eijax.report import figures, wording
from eijax.report.plain_text import clean_text, shorten
from eijax.scenarios.record import SCENES, Scenario
from eijax.simulator.mood import MEANING

MARKDOWN, CSV, PAGE = 'leaderboard.md', 'leaderboard.csv', 'leaderboard.html'
MAX_TEXT_CHARS = 4000
# In this order: a later one may use the names of an earlier one.
_SCRIPTS = ('page_elements.js', 'board.js', 'ranking.js', 'curves.js', 'failure_modes.js', 'talk.js', 'talk_list.js', 'start.js')


def write_leaderboard(
    entries: Sequence[Entry],
    out: pathlib.Path,
    *,
    title: str,
    scenarios: Mapping[str, Scenario],
    max_text_chars: int = MAX_TEXT_CHARS,
    thoughts: bool = True,
) -> list[pathlib.Path]:
  """Write the three files into a folder and return their paths. The same input gives the same bytes.

  Args:
    scenarios: by id, for titles, opening lines and targets; may lack any.
    max_text_chars: of one line, thought or part of a reflection; longer ones are cut and say so.
    thoughts: whether the models' thoughts go into the page.
  Raises:
    EijaxError: if the folder cannot be written.
  """
  warnings = list(entries_lib.warnings(entries))
  contents = {
      MARKDOWN: ranking.markdown(entries, title, warnings),
      CSV: ranking.to_csv(entries),
      PAGE: page(entries, warnings, title, scenarios, max_text_chars, thoughts),
  }
  for name, content in contents.items():
    jsonl.write_bytes(out / name, content.encode('utf-8', 'replace'))
  return [out / name for name in contents]


def page(
    entries: Sequence[Entry], warnings: Sequence[str], title: str, scenarios: Mapping[str, Scenario],
    max_text_chars: int, thoughts: bool,
) -> str:
  """The page as text."""
  environment = _environment()
  style = environment.get_template('leaderboard.css').render(palette=figures.PALETTE)
  script = _script()
  board = board_data(entries, scenarios, max_text_chars)
  return environment.get_template('leaderboard.html.j2').render(
      title=title, warnings=warnings, entries=entries, parts=ranking.PARTS, part_of=ranking.part_of,
      mean_rounds=ranking.mean_rounds, note=ranking.NOTE, signed=wording.signed, p_value=p_value, count=wording.count,
      num_talks=sum(len(entry.rows) for entry in entries),
      simulators=sorted({entry.evaluation.simulator or 'not recorded' for entry in entries}),
      style=markupsafe.Markup(style), script=markupsafe.Markup(script),
      style_hash=_csp_hash(style), script_hash=_csp_hash(script), board=_json_for_html(board),
      packed=[
          markupsafe.Markup(transcripts.packed_talks(entry, max_chars=max_text_chars, thoughts=thoughts)) for entry in entries
      ],
  )


def board_data(entries: Sequence[Entry], scenarios: Mapping[str, Scenario], max_text_chars: int) -> dict[str, Any]:
  """Everything that the page shows before a talk is opened; see transcripts.index for the talks."""
  rounds = max(curves.num_rounds(entry.rows) for entry in entries)
  rules = failure_modes.known_rules(entries)
  index = transcripts.index(entries, rules)
  return {
      'scenes': SCENES,
      'meaning': {scene: dict(zip(('anger', 'trust'), MEANING['en'][scene])) for scene in SCENES},
      'rounds': rounds,
      'rules': rules,
      'models': [
          {
              'label': entry.label,
              'scores': {part: ranking.part_of(entry, part) for part in ranking.PARTS},
              'curves': curves.curves(entry.rows, rounds),
              'modes': failure_modes.count_modes(entry, rules),
          }
          for entry in entries
      ],
      'scenarios': [_about(scenarios.get(name), max_text_chars) for name in index['ids']],
      **index,
  }


def _about(scenario: Scenario | None, max_chars: int) -> list[Any] | None:
  """[title, opening line, goal, target anger, target trust], or None where it is not at hand."""
  if scenario is None:
    return None
  return [
      shorten(clean_text(scenario.title), 200), shorten(clean_text(scenario.opening_line or ''), max_chars),
      shorten(clean_text(scenario.goal), 400), scenario.anchors.target_anger, scenario.anchors.target_trust,
  ]


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
      # The page has the style sheet of the run report.
      loader=jinja2.ChoiceLoader([
          jinja2.PackageLoader('eijax.leaderboard', 'templates'), jinja2.PackageLoader('eijax.report', 'templates'),
      ]),
      autoescape=True,
      finalize=lambda value: clean_text(value) if type(value) is str else value,  # pylint: disable=unidiomatic-typecheck
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
      keep_trailing_newline=True,
  )


@functools.cache
def _script() -> str:
  folder = importlib.resources.files('eijax.leaderboard') / 'templates'
  parts = '\n'.join((folder / name).read_text(encoding='utf-8') for name in _SCRIPTS)
  return f"\n'use strict';\n(() => {{\n{parts}\n}})();\n"


def _csp_hash(content: str) -> str:
  """What a Content-Security-Policy calls an element's text: nothing else may run on the page."""
  return 'sha256-' + base64.b64encode(hashlib.sha256(content.encode('utf-8')).digest()).decode('ascii')


def _json_for_html(value: Any) -> markupsafe.Markup:
  """JSON that cannot end the element it stands in, whatever its texts say."""
  text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(',', ':'))
  return markupsafe.Markup(text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026'))
