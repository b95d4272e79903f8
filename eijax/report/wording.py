"""Numbers and findings in words."""

import dataclasses
import math

from eijax.evaluation.results import MAX_FAILED_SHARE
from eijax.report.run_folder import Evaluation, Run, Score

MISSING = '–'
ALGORITHMS = {'ctc_grpo': 'CTC-GRPO', 'grpo': 'GRPO'}


def signed(value: float | None, digits: int = 1) -> str:
  """A number with its sign and a true minus; `0.0` without one."""
  if value is None or math.isnan(value):
    return MISSING
  text = f'{value:+.{digits}f}'
  if float(text) == 0:
    return text[1:]
  return text.replace('-', '\u2212')


def interval(score: Score) -> str:
  """The 95 % interval as `−3.1 to +4.0`."""
  return MISSING if score.low is None else f'{signed(score.low)} to {signed(score.high)}'


def are_disjoint(one: Score, other: Score) -> bool:
  return one.high < other.low or other.high < one.low


def count(num: int, noun: str) -> str:
  return f'{num:,} {noun}' if num == 1 else f'{num:,} {noun}s'


def moment(evaluation: Evaluation, run: Run) -> str:
  """How to name an evaluation: 'before training', 'after training', or its step."""
  if evaluation.step == 0:
    return 'before training'
  if run.is_finished and evaluation is run.evaluations[-1]:
    return 'after training'
  return f'at step {evaluation.step}'


def algorithm_name(run: Run) -> str:
  name = run.config.get('algorithm')
  return ALGORITHMS.get(name, str(name)) if name else 'reinforcement learning'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
  """figure: the two scores in large type. finding, verdict: sentences. warnings: what limits them."""

  figure: str
  finding: str
  verdict: str
  warnings: tuple[str, ...]


def headline(run: Run, change: Score) -> Headline:
  """The finding of the run. change: paired change between its first and last evaluation."""
  warnings = tuple(_warnings(run))
  if not run.evaluations:
    return Headline(
        figure='No held-out score yet', verdict='', warnings=warnings,
        finding='This folder holds no complete evaluation on the held-out scenarios, so nothing can be said about what was learned.',
    )
  before, after = run.evaluations[0], run.evaluations[-1]
  if before is after:
    return Headline(
        figure=signed(before.overall.mean),
        finding=f'Held-out score {moment(before, run)}: {_with_interval(before.overall)}.',
        verdict='There is no later evaluation yet, so nothing can be said about what was learned.', warnings=warnings,
    )
  if before.overall.mean is None or after.overall.mean is None:
    return Headline(
        figure=f'{signed(before.overall.mean)} → {signed(after.overall.mean)}', verdict='', warnings=warnings,
        finding='One of the two evaluations has not a single scored talk, so the two cannot be compared.',
    )
  difference = after.overall.mean - before.overall.mean
  verb = 'did not move' if abs(difference) < 0.05 else 'rose' if difference > 0 else 'fell'
  by = '' if verb == 'did not move' else f' by {abs(difference):.1f} points'
  return Headline(
      figure=f'{signed(before.overall.mean)} → {signed(after.overall.mean)}',
      finding=f'The held-out score {verb}{by}: from {_with_interval(before.overall)} {moment(before, run)} '
      f'to {_with_interval(after.overall)} {moment(after, run)}, on {count(change.num, "talk")} scored both times.',
      verdict=_verdict(before.overall, after.overall, change),
      warnings=warnings,
  )


def _with_interval(score: Score) -> str:
  return signed(score.mean) if score.low is None else f'{signed(score.mean)} (95 % interval {interval(score)})'


def _verdict(before: Score, after: Score, change: Score) -> str:
  paired = ''
  if change.mean is not None:
    paired = f' Compared scenario by scenario, the mean change is {signed(change.mean)} (95 % interval {interval(change)}).'
  if are_disjoint(before, after):
    return 'The two intervals are disjoint: the choice of held-out scenarios does not explain the change.' + paired
  return 'The two intervals overlap, so by themselves they leave open whether there is a change.' + paired


def _warnings(run: Run):
  if not run.is_finished:
    of = f' of {run.num_steps}' if run.num_steps is not None else ''
    seen = 'no evaluation is complete'
    if run.evaluations:
      last = run.evaluations[-1].step
      seen = 'only the first policy has been evaluated' if last == 0 else f'the latest evaluation is the one at step {last}'
    yield f'This run is not finished: {run.steps_done}{of} steps are done and {seen}.'
  if run.evaluations and run.evaluations[0].step != 0:
    yield f'The policy was not evaluated before training; the first evaluation is the one at step {run.evaluations[0].step}.'
  for step in run.partial_steps:
    yield f'The evaluation at step {step} was begun and not completed; it is left out.'
  for evaluation in run.evaluations:
    if evaluation.num_failed:
      share = evaluation.num_failed / max(1, evaluation.num_talks)
      text = f'In the evaluation at step {evaluation.step}, {evaluation.num_failed} of {count(evaluation.num_talks, "talk")} broke off with an error and are left out of the means.'
      yield text + (' That is above 5 %: the means may mislead.' if share > MAX_FAILED_SHARE else '')
