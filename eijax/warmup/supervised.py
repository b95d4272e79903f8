"""The warm-up of a policy that starts from random weights: demonstrations, each seen once."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

from jax.sharding import Mesh
import numpy as np

from eijax.learning import optimizer as optimizer_lib, packing, sharding
from eijax.learning.supervised import PlannedBatch, SupervisedLearner, rows_at
from eijax.policy.decoder import Decoder
from eijax.seeds import derive_seed
from eijax.warmup.config import WarmupConfig

# Positions whose logits exist at a time: about what one exercise or half a talk scores.
CHUNK_LENGTH = 256


def plan_batches(
    segments: Sequence[packing.Segment], kinds: Sequence[Sequence[int]], config: packing.PackingConfig, *, seed: int, multiple: int = 1,
) -> list[PlannedBatch]:
  """Mini-batches of every kind of segments, in one shuffled order; each segment is in one of them.

  Each kind has the shortest rows that hold it, and `rows_at` of them. Shuffled, because a policy that meets one kind
  after the other forgets the first: the same updates end at a higher loss.

  Args:
    kinds: indices of segments; none is empty.
    multiple: see `rows_at`.
  """
  planned = []
  for number, members in enumerate(kinds):
    chosen = [segments[i] for i in members]
    row_length = packing.choose_row_length(chosen, config.row_lengths)
    rows = rows_at(config, row_length, multiple)
    num_rows = len(packing.assign_rows([len(segment) for segment in chosen], row_length))
    shaped = dataclasses.replace(config, rows_per_minibatch=rows, num_minibatches=-(-num_rows // rows))
    plan, length = packing.plan_minibatches(chosen, shaped, seed=derive_seed('warm-up rows', seed, number))
    planned += [PlannedBatch(length, rows, [[members[i] for i in row] for row in batch]) for batch in plan]
  order = np.random.default_rng(derive_seed('warm-up order', seed)).permutation(len(planned))
  return [planned[i] for i in order]


def warm_up(
    decoder: Decoder, mesh: Mesh, config: WarmupConfig, *,
    kinds: Sequence[Sequence[packing.Segment]], seed: int, lead_in: tuple[int, int, int] | None = None,
    on_update: Callable[[int, int, float], None] | None = None,
) -> Any:
  """Params of a policy that imitates the demonstrations.

  Args:
    decoder: trained from random weights with an induction circuit (policy/initial.py).
    kinds: merged demonstrations, grouped by kind; every one is seen once, in an order that mixes the kinds.
    lead_in: see policy/initial.py.
    on_update: called with (updates done, updates in all, loss in nats per token); the
      loss is that of the update before, so that the device never waits for the host.
  Returns:
    Trained params, placed on the mesh.
  """
  learner = SupervisedLearner(decoder, optimizer_lib.make_optimizer(config.optimizer), mesh, chunk_length=CHUNK_LENGTH)
  segments, members = [], []
  for kind in kinds:
    members.append(range(len(segments), len(segments) + len(kind)))
    segments += kind
  planned = plan_batches(segments, members, config.packing, seed=seed, multiple=sharding.num_data_shards(mesh))
  last, state = None, learner.first_state(seed, lead_in)
  rate_at = lambda number: optimizer_lib.learning_rate_at(config.optimizer, number, len(planned))
  for number, state, metrics in learner.updates(state, (batch.fill(segments) for batch in planned), rate_at):
    if on_update is not None:
      on_update(number + 1, len(planned), float((last or metrics)['loss']))
    last = metrics
  return state.params
