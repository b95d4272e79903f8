"""What the processes of a run make of their parts: mini-batches of one shape, one evaluation, one row of metrics."""

from collections.abc import Callable, Mapping, Sequence
import pathlib
import tempfile
from typing import Any

from eijax.evaluation.results import summarise
from eijax.evaluation.store import ResultStore, place_of, read_rows
from eijax.learning import packing
from eijax.scenarios.record import Scenario
from eijax.training.peers import Peers
from eijax.training.preemption import Preemption


def share(items: Sequence[Any], peers: Peers) -> Sequence[Any]:
  """This process's part of a sequence that all have: neighbours, so that the parts put together are the whole."""
  return items[peers.index * len(items) // peers.count:(peers.index + 1) * len(items) // peers.count]


def pack(segments: Sequence[packing.Segment], config: packing.PackingConfig, seed: int, peers: Peers) -> list[packing.PackedBatch]:
  """A step's mini-batches, equal in number and shape in every process.

  Args:
    segments: of this process; may be none, as long as another has some.
    config: rows_per_minibatch is that of this process.
  """
  count, length = 0, config.row_lengths[0]
  while True:
    if segments:
      plan, length = packing.plan_minibatches(segments, config, seed=seed, num_minibatches=count, row_length=length)
      count = len(plan)
    agreed = peers.exchange([count, length])
    if all(part == agreed[0] for part in agreed):
      break
    count, length = (max(part[i] for part in agreed) for i in range(2))
  if segments:
    return packing.pack_minibatches(segments, config, seed=seed, num_minibatches=count, row_length=length)
  return [packing.fill_rows((), (), num_rows=config.rows_per_minibatch, row_length=length) for _ in range(count)]


def simulator_stats(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """The counts of all simulator clients; the mean latency weighs each with its requests, the 95th percentile is the largest."""
  requests = sum(part['requests'] for part in parts)
  result = {name: sum(part[name] for part in parts) for name in parts[0]}
  result['latency_secs_mean'] = sum(part['latency_secs_mean'] * part['requests'] for part in parts) / max(1, requests)
  result['latency_secs_p95'] = max(part['latency_secs_p95'] for part in parts)
  return result


def evaluate(
    hold: Callable[[Sequence[Scenario], pathlib.Path], Mapping[str, Any]], scenarios: Sequence[Scenario], folder: pathlib.Path,
    peers: Peers, preemption: Preemption, *, num_samples: int, model_name: str, simulator_name: str,
) -> Mapping[str, Any]:
  """Hold each process's part of the scenarios, and have process 0 write all.

  Args:
    hold: evaluation.run.evaluate for some scenarios, into a folder.
    folder: of the whole evaluation. With several processes, talks reach it when all are held: one that is killed holds them again.
  Returns:
    the summary, in every process.
  """
  if peers.count == 1:
    return hold(scenarios, folder)
  with tempfile.TemporaryDirectory(prefix='eijax_') as own:
    hold(share(scenarios, peers), pathlib.Path(own))
    own_rows = read_rows(own)
  with peers.together(preemption):
    rows = peers.gather(own_rows)
    summary = None
    if peers.is_first:
      places = ((scenario.id, sample) for scenario in scenarios for sample in range(num_samples))
      order = {place: number for number, place in enumerate(places)}
      with ResultStore(folder) as store:
        held = {place_of(row) for row in store.rows}
        for row in (row for part in rows for row in part):
          if place_of(row) not in held:
            store.add(row)
        summary = summarise(store.rows, model_name, simulator_name)
        store.finish(order, summary)
    return peers.exchange(summary)[0]
