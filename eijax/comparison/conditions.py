"""Whether two evaluations were held under the same conditions, in words."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from eijax.comparison.alignment import Alignment
from eijax.evaluation.reading import Evaluation
from eijax.evaluation.results import MAX_FAILED_SHARE

# Settings of the benchmark, by a part of their name. All others belong to the model or to the machine.
_CONDITION = re.compile(r'(^|[._])(simulator|scenarios|split|max_rounds|thinking|thoughts|charm|num_samples|samples|protocol)')
# Of these, what says where and how fast the work was done.
_NO_CONDITION = re.compile(r'url|concurrency|timeout|retries|attempts|per_step|versions')
_MAX_VALUE_CHARS = 60


def warnings(a: Evaluation, b: Evaluation, alignment: Alignment) -> list[str]:
  """What makes the difference hard to read as one between the models, a sentence each."""
  return [*_unlike(a, b), *_incomplete(a, b), *_unpaired(alignment), *_uneven(alignment)]


def _unlike(a: Evaluation, b: Evaluation) -> Iterator[str]:
  if a.folder.resolve() == b.folder.resolve():
    yield 'A and B are the same folder.'
  if a.simulator is not None and b.simulator is not None and a.simulator != b.simulator:
    yield f'The simulators differ: A {_shown(a.simulator)}, B {_shown(b.simulator)}. Scores of two simulators do not compare.'
  for name, ours, theirs in differing_settings(a, b):
    yield f'The setting {name} differs: A {_shown(ours)}, B {_shown(theirs)}.'


def differing_settings(a: Evaluation, b: Evaluation) -> list[tuple[str, Any, Any]]:
  """(dotted name, A's value, B's value) of each condition that both folders name differently."""
  if not a.settings or not b.settings:
    return []
  ours, theirs = dict(_flat(a.settings)), dict(_flat(b.settings))
  return [
      (name, ours.get(name), theirs.get(name))
      for name in sorted(ours.keys() | theirs.keys())
      if _CONDITION.search(name) and not _NO_CONDITION.search(name) and ours.get(name) != theirs.get(name)
  ]


def _flat(settings: Mapping[str, Any], path: str = '') -> Iterator[tuple[str, Any]]:
  for key, value in settings.items():
    name = f'{path}.{key}' if path else str(key)
    if isinstance(value, Mapping):
      yield from _flat(value, name)
    else:
      yield name, value


def _shown(value: Any) -> str:
  text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
  return text if len(text) <= _MAX_VALUE_CHARS else f'{text[:_MAX_VALUE_CHARS]}…'


def _incomplete(a: Evaluation, b: Evaluation) -> Iterator[str]:
  for side, evaluation in (('A', a), ('B', b)):
    if evaluation.summary is None:
      yield f'{side} is not finished: {len(evaluation.rows)} talks and no summary. Short talks end first, so the rest may differ.'
    failed = sum(row['score'] is None for row in evaluation.rows)
    if failed > MAX_FAILED_SHARE * len(evaluation.rows):
      yield f'{failed} of {len(evaluation.rows)} talks of {side} failed (above {100 * MAX_FAILED_SHARE:.0f} %); the rest may not stand for all.'


def _unpaired(alignment: Alignment) -> Iterator[str]:
  if alignment.left_out:
    num = len(alignment.left_out)
    scenarios = len({item.id for item in alignment.left_out} - {pair.id for pair in alignment.pairs})
    yield (
        f'{num} {"entry is" if num == 1 else "entries are"} left out because the other side has no match or the talk '
        f'failed; {scenarios} {"scenario has" if scenarios == 1 else "scenarios have"} no pair at all. They are listed below.'
    )


def _uneven(alignment: Alignment) -> Iterator[str]:
  counts = {(pair.a.num_samples, pair.b.num_samples) for pair in alignment.pairs}
  if len({count for pair in counts for count in pair}) > 1:
    a, b = ({pair[place] for pair in counts} for place in (0, 1))
    yield f'Samples a scenario: A {_span(a)}, B {_span(b)}. Each scenario counts once, with the mean of its samples.'


def _span(counts: set[int]) -> str:
  return str(min(counts)) if len(counts) == 1 else f'{min(counts)} to {max(counts)}'
