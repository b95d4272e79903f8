"""Write report.html of a run folder: one page that needs nothing else."""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from eijax import jsonl
from eijax.report import (
    examples, figures, held_out, held_out_figures, learning_figures, machine, supervised, talk_figure, wording)
from eijax.report.plain_text import clean_text, shorten
from eijax.report.run_folder import NO_SCORE, Evaluation, Run, read_run
from eijax.report.settings import flatten
from eijax.scenarios.record import SCENES, Scenario
from eijax.simulator.mood import MEANING

REPORT = 'report.html'
_MAX_TABLE_ROWS = 1000
# A name longer than this is no name; it would bury the page.
_MAX_NAME_CHARS = 100
_MAX_SETTING_CHARS = 1000


def write_report(workdir: str | os.PathLike, *, scenarios: str | os.PathLike | None = None) -> pathlib.Path:
  """Write report.html into a run folder and return its path.

  The same folder gives the same bytes. An unfinished run gives a report that says so.

  Args:
    workdir: run folder as eijax.train or eijax.sft leaves it.
    scenarios: folder of the scenarios, for their titles and opening lines; without it, the
      one that the run's config names, if it is there.
  Raises:
    DataError: if the folder is no run folder or a file in it is broken.
    EijaxError: if the report cannot be written.
  """
  run = read_run(workdir)
  if run.is_supervised:
    template, shown = 'supervised.html.j2', supervised.content(workdir, run)
  else:
    known = examples.scenarios_of_config(run.config) if scenarios is None else examples.scenarios_by_id(scenarios)
    template, shown = 'report.html.j2', _content(run, known)
  page = _environment().get_template(template).render(shown)
  path = pathlib.Path(workdir) / REPORT
  jsonl.write_bytes(path, page.encode('utf-8'))
  return path


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
      loader=jinja2.PackageLoader('eijax.report', 'templates'),
      autoescape=True,
      # Whatever the page prints passes here, so that no text can be forgotten.
      finalize=lambda value: clean_text(value) if type(value) is str else value,  # pylint: disable=unidiomatic-typecheck
      undefined=jinja2.StrictUndefined,
      trim_blocks=True,
      lstrip_blocks=True,
      keep_trailing_newline=True,
  )


def _content(run: Run, known: Mapping[str, Scenario]) -> dict[str, Any]:
  before = run.evaluations[0] if run.evaluations else None
  after = run.evaluations[-1] if len(run.evaluations) > 1 else None
  pairs = held_out.pair_up(before, after) if before else []
  labels = tuple(wording.moment(item, run) if item else '' for item in (before, after))
  learning = [learning_figures.reward_panel(run), learning_figures.scenes_panel(run)]
  return {
      'run': run,
      'title': f'{_name(wording.algorithm_name(run))} on {_name(run.config.get("preset") or "a policy")}',
      'seed': _name(run.config.get('seed', 'not recorded')),
      'headline': wording.headline(run, held_out.mean_change(pairs)),
      'labels': labels,
      'has_after': after is not None,
      'learning': [panel for panel in learning if panel],
      'health': learning_figures.health_panels(run),
      'seconds': learning_figures.seconds_panel(run),
      'breakdown': machine.breakdown(run.metrics),
      'memory': machine.memory_words(run.metrics),
      'evaluations': run.evaluations,
      'held_out': _held_out(before, after, pairs, labels) if before else None,
      'examples': _examples(pairs, known, labels),
      'has_openings': bool(known),
      'table': _table(pairs, known),
      'settings': [
          (_name(name), shorten(value, _MAX_SETTING_CHARS)) for name, value in flatten(run.config)
      ],
      'simulator': _simulator_name(run),
      'palette': figures.PALETTE,
      'signed': wording.signed,
      'interval': wording.interval,
      'count': wording.count,
  }


def _name(value: Any) -> str:
  return shorten(str(value), _MAX_NAME_CHARS)


def _simulator_name(run: Run) -> str:
  if run.is_embedded:
    return 'the embedded simulator'
  simulator = run.config.get('simulator')
  name = simulator.get('model') if isinstance(simulator, Mapping) else None
  return _name(name) if name else 'an unnamed simulator'


def _held_out(
    before: Evaluation, after: Evaluation | None, pairs: Sequence[held_out.Pair], labels: tuple[str, str]
) -> dict[str, Any]:
  rows = []
  for scene in (None, *SCENES):
    part = [pair for pair in pairs if scene in (None, pair.scene)]
    scores = [
        (item.overall if scene is None else item.scenes.get(scene)) if item else None for item in (before, after)
    ]
    if part and scores[0]:
      rows.append({
          'name': scene.capitalize() if scene else 'All',
          'before': scores[0],
          'scores': [scores[0], scores[1] or NO_SCORE, held_out.mean_change(part)] if after else [scores[0]],
      })
  endings = [
      {'words': words, 'counts': [held_out.count_endings(item.rows)[key] for item in (before, after) if item]}
      for key, words, _ in held_out.ENDINGS
  ]
  rounds = [held_out.mean_rounds(item.rows) for item in (before, after) if item]
  return {
      'scores': rows,
      'bars': held_out_figures.scene_bars(before, after, labels),
      'endings_panel': held_out_figures.endings_panel(before, after, labels),
      'endings': [ending for ending in endings if any(ending['counts'])],
      'rounds': [wording.MISSING if value is None else f'{value:.1f}' for value in rounds],
      'moods': held_out_figures.mood_panels(before, after, MEANING['en']),
  }


def _examples(
    pairs: Sequence[held_out.Pair], known: Mapping[str, Scenario], labels: tuple[str, str]
) -> list[dict[str, Any]]:
  chosen = examples.choose(pairs)
  limit = examples.text_limit(chosen)
  rows = [row for item in chosen for row in (item.pair.before, item.pair.after)]
  num_rounds = max((len(row['turns']) for row in rows), default=1)
  deltas = [abs(turn[f'{axis}_delta']) for row in rows for turn in row['turns'] for axis in held_out.AXES]
  views = []
  for place, item in enumerate(chosen):
    pair = item.pair
    scenario = examples.matching(known.get(pair.scenario_id), (pair.before, pair.after))
    views.append({
        'scene': pair.scene,
        'id': _name(pair.scenario_id),
        'title': _name(scenario.title if scenario else pair.scenario_id),
        'goal': shorten(scenario.goal, 400) if scenario else '',
        'anchors': scenario.anchors if scenario else None,
        'rule': _rules_words(item),
        'is_open': 'median' in item.rules,
        'before_score': pair.before_score, 'after_score': pair.after_score, 'change': pair.change,
        'talks': [
            {
                'label': f'Policy {label}',
                'score': held_out.score_of(row),
                'opening': shorten(scenario.opening_line or '', limit) if scenario else '',
                'lang': scenario.language if scenario else '',
                'turns': examples.turns_of(row, limit),
                'ended': _ending_words(row),
                'svg': talk_figure.talk_svg(
                    row, f'talk-{place}-{side}', num_rounds=num_rounds, max_delta=max(deltas, default=0) or 10,
                    anchors=scenario.anchors if scenario else None,
                ),
            }
            for side, (label, row) in enumerate(zip(labels, (pair.before, pair.after)))
        ],
    })
  return views


def _rules_words(chosen: examples.Chosen) -> str:
  if len(chosen.rules) == 3:
    return 'the only one scored both times'
  return ' and '.join(_rule_words(rule, chosen.pair.change) for rule in chosen.rules)


def _rule_words(rule: str, change: float) -> str:
  if rule == 'median':
    return 'median change'
  if rule == 'best':
    return 'largest gain' if change >= 0 else 'smallest loss'
  return 'smallest gain' if change >= 0 else 'largest loss'


def _ending_words(row: Mapping[str, Any]) -> str:
  turns = wording.count(len(row['turns']), 'turn')
  if row.get('ended_by') == 'simulator_stop':
    reason = str(row.get('stop_reason') or '')
    return f'The user ended the talk after {turns}' + (f': “{shorten(reason, 300)}”' if reason else '.')
  return f'The round limit ended the talk after {turns}.'


def _table(pairs: Sequence[held_out.Pair], known: Mapping[str, Scenario]) -> dict[str, Any]:
  rows = []
  for pair in pairs[:_MAX_TABLE_ROWS]:
    scenario = examples.matching(known.get(pair.scenario_id), (pair.before, pair.after))
    rows.append({
        'scene': pair.scene.capitalize(), 'id': _name(pair.scenario_id),
        'sample': pair.sample, 'title': _name(scenario.title) if scenario else '',
        'before': _score_words(pair.before), 'after': _score_words(pair.after), 'change': wording.signed(pair.change, 0),
    })
  return {'rows': rows, 'num_left_out': max(0, len(pairs) - _MAX_TABLE_ROWS), 'has_samples': any(pair.sample != 0 for pair in pairs)}


def _score_words(row: Mapping[str, Any] | None) -> str:
  if row is None:
    return wording.MISSING
  return 'failed' if row['score'] is None else wording.signed(held_out.score_of(row), 0)
