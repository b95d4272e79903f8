"""Run a model over scenarios into a folder of results; a killed run goes on where it was."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eijax.errors import DataError
from eijax.evaluation.results import result_row, summarise
from eijax.evaluation.store import Place, ResultStore, place_of
from eijax.evaluation.writer import RowWriter
from eijax.rollouts.ports import EpisodeJob, Policy, Rollout, Simulator
from eijax.rollouts.runner import TalkRules, hold_talks
from eijax.scenarios.record import Scenario
from eijax.seeds import derive_seed


def evaluate(
    scenarios: Sequence[Scenario],
    policy: Policy,
    simulator: Simulator,
    folder: str | os.PathLike,
    *,
    model_name: str,
    simulator_name: str,
    max_rounds: int,
    thinking: bool,
    seed: int,
    num_samples: int = 1,
    keep_thoughts: bool = False,
    closing_reply: bool = False,
    lockstep: bool = True,
    max_open: int | None = None,
    is_fatal: Callable[[Exception], bool] = lambda error: False,
    on_start: Callable[[Sequence[Mapping[str, Any]]], None] | None = None,
    on_finish: Callable[[Rollout], None] | None = None,
    notes: Callable[[], Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
  """Hold num_samples talks per scenario, write results.jsonl and summary.json.

  Talks that the folder holds already are not held again; the seed of a talk depends on
  seed, scenario and sample alone, so that a resumed run holds the very talks that an
  uninterrupted one would. With several samples a row also has `sample` (from 0). Rows are
  appended as talks end, and put in the order of the scenarios at the end.

  Args:
    max_rounds, thinking, keep_thoughts, closing_reply: see TalkRules.
    lockstep, max_open, is_fatal: see hold_talks.
    on_start: called with the rows (without talks) that the folder holds already.
    on_finish: called as each talk ends, once its row is on disk, in a thread of its own; see RowWriter.
    notes: called at the end: further fields of the summary.
  Returns:
    the summary, as written.
  Raises:
    DataError: if the folder holds results of other scenarios.
    EijaxError: if the folder cannot be written.
  """
  if num_samples < 1:
    raise ValueError(f'num_samples={num_samples} must be >= 1')
  wanted = ((scenario.id, sample) for scenario in scenarios for sample in range(num_samples))
  order: dict[Place, int] = {place: number for number, place in enumerate(wanted)}
  with ResultStore(folder) as store:
    held = _held(store, order)
    if on_start is not None:
      on_start(store.rows)

    def row_of(rollout: Rollout) -> dict[str, Any]:
      row = result_row(rollout.episode)
      if num_samples > 1:
        row['sample'] = int(rollout.job.key.rpartition('#')[2])
      return row

    rules = TalkRules(
        max_rounds=max_rounds, thinking=thinking, keep_thoughts=keep_thoughts, closing_reply=closing_reply
    )
    # In lockstep nothing goes on while the disk is awaited, and the policy's place is free once `on_finish` returns.
    with RowWriter(store, row_of, on_finish, waits=lockstep) as writer:
      hold_talks(
          _jobs(scenarios, num_samples, held, seed), policy, simulator, rules, on_finish=writer.put, lockstep=lockstep,
          max_open=max_open, is_fatal=is_fatal,
      )
    summary = summarise(store.rows, model_name, simulator_name) | dict(notes() if notes is not None else {})
    store.finish(order, summary)
  return summary


def _held(store: ResultStore, order: Mapping[Place, int]) -> set[Place]:
  """Places that have a row already; refuses rows of another evaluation, and two rows for one place."""
  held: set[Place] = set()
  for row in store.rows:
    place = place_of(row)
    if place not in order:
      raise DataError(
          f'{store.folder}: holds a result for scenario {place[0]!r} (sample {place[1]}), which this '
          'evaluation does not; use another folder, or the scenarios and samples of the first run'
      )
    if place in held:
      raise DataError(
          f'{store.folder}: holds two results for scenario {place[0]!r} (sample {place[1]}), but a talk counts once; '
          'was it written by two evaluations at once? Remove one of the two rows, or use another folder'
      )
    held.add(place)
  return held


def _jobs(scenarios: Sequence[Scenario], num_samples: int, held: set[Place], seed: int) -> Iterator[EpisodeJob]:
  for scenario in scenarios:
    for sample in range(num_samples):
      if (scenario.id, sample) not in held:
        yield EpisodeJob(
            scenario=scenario, seed=derive_seed('evaluation', seed, scenario.id, sample), key=f'{scenario.id}#{sample}'
        )
