"""Supervised updates on packed demonstrations, through the learner's own step."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
import numpy as np

from eijax.learning import losses, optimizer as optimizer_lib, packing, scoring, sharding, step
from eijax.policy.decoder import Decoder
from eijax.policy.initial import with_induction_circuit
from eijax.seeds import derive_seed
from eijax.warmup.config import WarmupConfig

# Positions whose logits exist at a time: about what one exercise or half a talk scores.
CHUNK_LENGTH = 256


def mini_batches(config: packing.PackingConfig, kinds: Sequence[Sequence[packing.Segment]], seed: int) -> list[packing.PackedBatch]:
  """Mini-batches of every kind of segments, in one shuffled order.

  Each kind has the shortest rows that hold it, and as many of them as keep the positions of a mini-batch within
  rows_per_minibatch rows of the longest length. Shuffled, because a policy that meets one kind after the other
  forgets the first: the same updates end at a higher loss.
  """
  batches = []
  for number, segments in enumerate(kinds):
    row_length = packing.choose_row_length(segments, config.row_lengths)
    rows = max(1, config.rows_per_minibatch * config.row_lengths[-1] // row_length)
    num_rows = len(packing.assign_rows([len(segment) for segment in segments], row_length))
    shaped = dataclasses.replace(config, rows_per_minibatch=rows, num_minibatches=-(-num_rows // rows))
    batches += packing.pack_minibatches(segments, shaped, seed=derive_seed('warm-up rows', seed, number))
  order = np.random.default_rng(derive_seed('warm-up order', seed)).permutation(len(batches))
  return [batches[i] for i in order]


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
  optimizer = optimizer_lib.make_optimizer(config.optimizer)
  init_fn = step.params_init(decoder)
  abstract = step.abstract_train_state(init_fn, optimizer, mesh)
  shardings = step.state_shardings(abstract)
  init_key, circuit_key = jax.random.split(jax.random.key(seed))
  fresh = step.create_train_state(init_fn, optimizer, mesh, init_key).params
  if jax.process_count() > 1:
    fresh = multihost_utils.process_allgather(fresh, tiled=True)  # Small, and changed on the host.
  params = jax.device_put(with_induction_circuit(fresh, decoder.config, circuit_key, lead_in), shardings.params)
  state = step.train_state_of(params, optimizer, abstract)
  score_fn = scoring.make_score_fn(decoder, temperature=1.0, chunk_length=CHUNK_LENGTH)
  update = step.make_update_step(score_fn, losses.supervised_loss_fn, optimizer, mesh, shardings)
  batches = mini_batches(config.packing, kinds, seed)
  last = None
  for i, batch in enumerate(batches):
    rate = optimizer_lib.learning_rate_at(config.optimizer, i, len(batches))
    # Every process has made the same rows, and gives its share of them.
    state, metrics = update(state, sharding.put_batch(sharding.share_of_rows(batch), mesh, 1), rate)
    if on_update is not None:
      on_update(i + 1, len(batches), float((last or metrics)['loss']))
    last = metrics
  return state.params
