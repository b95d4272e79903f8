"""Supervised learning from demonstrations: the one path of the warm-up and of fine-tuning.

Demonstrations become segments, segments mini-batches of few fixed shapes, and each mini-batch one update by the
learner's own step (`learning.step`) under the cross-entropy of the demonstrated tokens.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
import optax

from eijax.learning import losses, packing, scoring, sharding, step
from eijax.policy.decoder import Decoder
from eijax.policy.initial import with_induction_circuit


class PlannedBatch(NamedTuple):
  """A mini-batch before it is filled: indices of the segments of each used row."""

  row_length: int
  num_rows: int
  rows: list[list[int]]

  def fill(self, segments: Sequence[packing.Segment]) -> packing.PackedBatch:
    return packing.fill_rows(segments, self.rows, num_rows=self.num_rows, row_length=self.row_length)


def segments_of(turns: Iterable[tuple[Sequence[int], Sequence[int]]], max_length: int) -> list[packing.Segment]:
  """The demonstrated turns of one talk, (prompt ids, response ids) in order, merged where one continues the other."""
  samples = [packing.supervised_sample(np.array(prompt, np.int32), np.array(response, np.int32)) for prompt, response in turns]
  return packing.merge_turns(samples, max_length=max_length)


def rows_at(config: packing.PackingConfig, row_length: int, multiple: int = 1) -> int:
  """Rows of a mini-batch of this length: as many as keep its positions within those of rows_per_minibatch longest rows.

  Args:
    multiple: that the rows are a multiple of, so that micro-batches and devices share them evenly.
  """
  return max(1, config.rows_per_minibatch * config.row_lengths[-1] // row_length // multiple) * multiple


class SupervisedLearner:
  """A policy's programs for learning from demonstrations, on one mesh; each is compiled once a row length.

  Args:
    decoder: the policy.
    optimizer: see optimizer.make_optimizer.
    mesh: devices.
    num_micro_batches: parts of a mini-batch whose gradients are added up.
    chunk_length: see scoring.make_score_fn.
  Attributes:
    abstract: the train state without its values.
  """

  def __init__(
      self, decoder: Decoder, optimizer: optax.GradientTransformationExtraArgs, mesh: Mesh, *,
      num_micro_batches: int = 1, chunk_length: int = 0,
  ):
    self._decoder, self._optimizer, self._mesh = decoder, optimizer, mesh
    self._num_micro_batches = num_micro_batches
    self.abstract = step.abstract_train_state(step.params_init(decoder), optimizer, mesh)
    shardings = step.state_shardings(self.abstract)
    # Demonstrations are to become likely as they are: no temperature.
    score_fn = scoring.make_score_fn(
        decoder, temperature=1.0, chunk_length=chunk_length, gradient_dtype=decoder.config.gradient_dtype)
    self._update = step.make_update_step(score_fn, losses.supervised_loss_fn, optimizer, mesh, shardings)
    self._measure = _make_measure(score_fn, mesh, shardings.params)

  def first_state(self, seed: int, lead_in: tuple[int, int, int] | None = None) -> step.TrainState:
    """A state of random weights with an induction circuit; see policy/initial.py."""
    init_key, circuit_key = jax.random.split(jax.random.key(seed))
    fresh = step.create_train_state(step.params_init(self._decoder), self._optimizer, self._mesh, init_key).params
    if jax.process_count() > 1:
      fresh = multihost_utils.process_allgather(fresh, tiled=True)  # Small, and changed on the host.
    params = with_induction_circuit(fresh, self._decoder.config, circuit_key, lead_in)
    return self.state_of(jax.device_put(params, step.state_shardings(self.abstract).params))

  def state_of(self, params: Any) -> step.TrainState:
    """A fresh state around params that are placed already; they become part of it."""
    return step.train_state_of(params, self._optimizer, self.abstract)

  def updates(
      self, state: step.TrainState, batches: Iterable[packing.PackedBatch], rate_at: Callable[[int], Any], first: int = 0,
  ) -> Iterator[tuple[int, step.TrainState, dict[str, jax.Array]]]:
    """One update a batch: yields (updates before this one, state after it, metrics still on the devices).

    The state that went in, and each that came out, is gone after the next update. Whoever reads the metrics of
    the update before, instead of the present one's, keeps the devices busy meanwhile.

    Args:
      batches: those from update `first` on; the same in every process, which each give their share of the rows.
      rate_at: learning rate of an update, by its number from 0.
    """
    for number, batch in enumerate(batches, start=first):
      state, metrics = self._update(state, self._put(batch), rate_at(number))
      yield number, state, metrics

  def measure(self, params: Any, batches: Iterable[packing.PackedBatch]) -> tuple[float, int]:
    """(cross-entropy in nats per demonstrated token, number of these tokens), nothing learned.

    At most two batches are under way: whoever gives them can stop in time.
    """
    sums = []
    for batch in batches:
      sums.append(self._measure(params, self._put(batch)))
      jax.block_until_ready(sums[-2:][0])
    # Added on the host in double precision: a large set has more tokens than float32 counts.
    loss, count = np.sum([np.asarray(jax.device_get(pair), np.float64) for pair in sums], axis=0)
    return float(loss / count), int(count)

  def _put(self, batch: packing.PackedBatch) -> packing.PackedBatch:
    return sharding.put_batch(sharding.share_of_rows(batch), self._mesh, self._num_micro_batches)


def _make_measure(score_fn: scoring.ScoreFn, mesh: Mesh, param_shardings: Any):
  """Jitted (params, batch [M, B, T]) -> (loss sum, number of scored tokens), float32[] each."""
  replicated = NamedSharding(mesh, PartitionSpec())

  def measure(params, batch: packing.PackedBatch):
    def one(micro):
      terms = losses.supervised_loss_fn(score_fn(params, micro), micro)
      return terms.loss_sum, terms.count

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(sharding.logical_axis_rules()):
      return jax.tree.map(jnp.sum, jax.lax.map(one, batch))

  return jax.jit(measure, in_shardings=(param_shardings, sharding.batch_sharding(mesh)), out_shardings=replicated)
