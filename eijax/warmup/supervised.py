"""Supervised updates on packed demonstrations, through the learner's own step."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh

from eijax.learning import losses, optimizer as optimizer_lib, packing, scoring, sharding, step
from eijax.policy.decoder import Decoder
from eijax.policy.initial import with_induction_circuit
from eijax.warmup.config import WarmupConfig

# Positions whose logits exist at a time: about what one exercise or half a talk scores.
CHUNK_LENGTH = 256


def _mini_batches(config: WarmupConfig, phases: Sequence[Sequence[packing.Segment]], seed: int) -> list[packing.PackedBatch]:
  """Mini-batches of all phases in order, each phase shuffled by itself."""
  batches = []
  for segments in phases:
    row_length = packing.choose_row_length(segments, config.packing.row_lengths)
    num_rows = len(packing.assign_rows([len(segment) for segment in segments], row_length))
    shaped = dataclasses.replace(config.packing, num_minibatches=-(-num_rows // config.packing.rows_per_minibatch))
    batches += packing.pack_minibatches(segments, shaped, seed=seed + len(batches))
  return batches


def warm_up(
    decoder: Decoder, mesh: Mesh, config: WarmupConfig, *,
    phases: Sequence[Sequence[packing.Segment]], seed: int,
    on_update: Callable[[int, int, float], None] | None = None,
) -> Any:
  """Params of a policy that imitates the demonstrations, one phase after the other.

  Args:
    decoder: trained from random weights with an induction circuit (policy/initial.py).
    phases: merged demonstrations of each phase; every one is seen once.
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
  params = jax.device_put(with_induction_circuit(fresh, decoder.config, circuit_key), shardings.params)
  state = step.train_state_of(params, optimizer, abstract)
  score_fn = scoring.make_score_fn(decoder, temperature=1.0, chunk_length=CHUNK_LENGTH)
  update = step.make_update_step(score_fn, losses.supervised_loss_fn, optimizer, mesh, shardings)
  batches = _mini_batches(config, phases, seed)
  last = None
  for i, batch in enumerate(batches):
    rate = optimizer_lib.learning_rate_at(config.optimizer, i, len(batches))
    state, metrics = update(state, sharding.put_batch(batch, mesh, 1), rate)
    if on_update is not None:
      on_update(i + 1, len(batches), float((last or metrics)['loss']))
    last = metrics
  return state.params
