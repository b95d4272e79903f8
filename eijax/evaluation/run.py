"""Run a model over scenarios into a folder of results; a killed run goes on where it was."""

import collections
import os
from collections.abc import Callable, Sequence
from typing import Any

from eijax.errors import DataError
from eijax.evaluation.results import result_row, summarise
from eijax.evaluation.store import ResultStore
from eijax.rollouts.ports import EpisodeJob, Policy, Rollout, Simulator
from eijax.rollouts.runner import run_rollouts
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
    lockstep: bool = True,
    on_finish: Callable[[Rollout], None] | None = None,
) -> dict[str, Any]:
  """Hold num_samples talks per scenario, write results.jsonl and summary.json.

  Talks that the folder holds already are not held again; the seed of a talk depends on
  seed, scenario and sample alone, so that a resumed run holds the very talks that an
  uninterrupted one would. With several samples a row also has `sample` (from 0).

  Returns:
    the summary, as written.
  Raises:
    DataError: if the folder holds results of other scenarios.
    EijaxError: if the folder cannot be written.
  """
  if num_samples < 1:
    raise ValueError(f'num_samples={num_samples} must be >= 1')
  with ResultStore(folder) as store:
    held = collections.Counter((row['id'], row.get('sample', 0)) for row in store.rows)
    wanted = {(scenario.id, sample) for scenario in scenarios for sample in range(num_samples)}
    strange = next((place for place in held if place not in wanted), None)
    if strange is not None:
      raise DataError(
          f'{store.folder}: holds a result for scenario {strange[0]!r} (sample {strange[1]}), which this '
          'evaluation does not; use another folder, or the scenarios and samples of the first run'
      )
    samples: dict[str, int] = {}
    jobs = []
    for scenario in scenarios:
      for sample in range(num_samples):
        if (scenario.id, sample) not in held:
          key = f'{scenario.id}#{sample}'
          samples[key] = sample
          jobs.append(EpisodeJob(
              scenario=scenario, seed=derive_seed('evaluation', seed, scenario.id, sample), key=key
          ))

    def keep(rollout: Rollout) -> None:
      row = result_row(rollout.episode)
      if num_samples > 1:
        row['sample'] = samples[rollout.job.key]
      store.add(row)
      if on_finish is not None:
        on_finish(rollout)

    run_rollouts(
        jobs, policy, simulator, max_rounds=max_rounds, thinking=thinking, keep_thoughts=keep_thoughts,
        on_finish=keep, lockstep=lockstep,
    )
    summary = summarise(store.rows, model_name, simulator_name)
    store.write_summary(summary)
  return summary
