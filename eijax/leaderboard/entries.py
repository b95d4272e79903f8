"""The evaluations on a leaderboard: read, named apart, ranked, checked against each other."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eijax.comparison.alignment import align
from eijax.comparison.conditions import differing_settings
from eijax.comparison.paired import Paired, holm, summarise_differences
from eijax.errors import UsageError
from eijax.evaluation.reading import Evaluation, read_evaluation
from eijax.evaluation.results import summarise, too_many_failed
from eijax.report.examples import matching
from eijax.report.plain_text import clean_text, shorten
from eijax.scenarios.record import Scenario

_MAX_LABEL_CHARS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One model on the board. label is unique on it.

  scores: as summary.json, counted anew from the rows. against_first: paired difference to the
  first entry, and its p value adjusted (Holm) over the board; None for the first itself.
  """

  label: str
  evaluation: Evaluation
  scores: Mapping[str, Any]
  against_first: Paired | None = None
  p_adjusted: float | None = None

  @property
  def rows(self) -> Sequence[Mapping[str, Any]]:
    return self.evaluation.rows


def read_entries(arguments: Sequence[str]) -> list[Entry]:
  """Read FOLDER or NAME=FOLDER arguments into entries, best overall score first.

  Raises:
    UsageError: no argument, one folder twice, or one name twice.
    DataError: a folder that cannot be read.
  """
  if not arguments:
    raise UsageError('no run given; give evaluation folders: python -m eijax.leaderboard RUN...')
  named = [_split(argument) for argument in arguments]
  _refuse_twice('folder', [str(folder.resolve()) for _, folder in named])
  _refuse_twice('name', [name for name, _ in named if name])
  evaluations = [read_evaluation(folder) for _, folder in named]
  labels = _labels([name for name, _ in named], evaluations)
  entries = [
      Entry(label=label, evaluation=item, scores=summarise(item.rows, item.name, item.simulator or ''))
      for label, item in zip(labels, evaluations)
  ]
  return _against_first(sorted(entries, key=_rank))


def _split(argument: str) -> tuple[str, pathlib.Path]:
  """NAME=FOLDER, unless a folder of just that name is there."""
  name, sign, folder = argument.partition('=')
  if not sign or pathlib.Path(argument).exists():
    return '', pathlib.Path(argument)
  if not name or not folder:
    raise UsageError(f'{argument!r} must be FOLDER or NAME=FOLDER')
  return name, pathlib.Path(folder)


def _refuse_twice(what: str, values: Sequence[str]) -> None:
  for value, count in collections.Counter(values).items():
    if count > 1:
      raise UsageError(f'{what} {value!r} is given {count} times; give each once')


def _labels(names: Sequence[str], evaluations: Sequence[Evaluation]) -> list[str]:
  """The given name, else the model's; where two are the same, with their folders."""
  labels = [_clean(name or item.name) for name, item in zip(names, evaluations)]
  counts = collections.Counter(labels)
  # The end of a path tells folders apart.
  labels = [
      label if counts[label] == 1 else f'{label} ({_clean("/".join(item.folder.resolve().parts[-3:]))})'
      for label, item in zip(labels, evaluations)
  ]
  seen: collections.Counter[str] = collections.Counter()
  unique = []
  for label in labels:
    seen[label] += 1
    unique.append(label if seen[label] == 1 else f'{label} #{seen[label]}')
  return unique


def _clean(text: str) -> str:
  return shorten(clean_text(' '.join(text.split())), _MAX_LABEL_CHARS) or '(no name)'


def _rank(entry: Entry) -> tuple[bool, float, str]:
  score = entry.scores['overall']['score']
  return score is None, -(score or 0.0), entry.label


def _against_first(entries: Sequence[Entry]) -> list[Entry]:
  first = entries[0]
  tests = {}
  for entry in entries[1:]:
    pairs = align(first.evaluation, entry.evaluation).pairs
    tests[entry.label] = summarise_differences({pair.id: pair.difference for pair in pairs})
  adjusted = holm({label: test.p_value for label, test in tests.items()})
  return [first] + [
      dataclasses.replace(entry, against_first=tests[entry.label], p_adjusted=adjusted[entry.label])
      for entry in entries[1:]
  ]


def warnings(entries: Sequence[Entry]) -> Iterator[str]:
  """What limits the ranking, a sentence each."""
  simulators = sorted({entry.evaluation.simulator for entry in entries if entry.evaluation.simulator is not None})
  if len(simulators) > 1:
    yield f'The users were played by different simulators ({", ".join(map(_clean, simulators))}); their scores do not compare.'
  first = entries[0]
  scenarios = {row['id'] for row in first.rows}
  for entry in entries:
    if {row['id'] for row in entry.rows} != scenarios:
      yield (
          f'{entry.label} was evaluated on other scenarios than {first.label} '
          f'({len({row["id"] for row in entry.rows})} and {len(scenarios)}, {len({row["id"] for row in entry.rows} & scenarios)} in common).'
      )
    names = [name for name, _, _ in differing_settings(first.evaluation, entry.evaluation)]
    if names:
      yield f'{entry.label} has other settings than {first.label}: {", ".join(map(_clean, names))}.'
    if entry.evaluation.summary is None:
      yield f'{entry.label} is not finished: {len(entry.rows)} talks so far.'
    if too_many_failed(entry.scores):
      yield f'{entry.scores["failed"]} of {entry.scores["n"]} talks of {entry.label} failed; the rest may not stand for all.'


def titled_scenarios(entries: Sequence[Entry], known: Mapping[str, Scenario]) -> dict[str, Scenario]:
  """The known scenarios that the talks were really held on: same id, scene and start state."""
  rows = collections.defaultdict(list)
  for entry in entries:
    for row in entry.rows:
      rows[row['id']].append(row)
  return {name: known[name] for name in rows if matching(known.get(name), rows[name]) is not None}
