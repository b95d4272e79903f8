"""The learner of a run: its state's shapes and its one compiled update.

Training runs it; the ahead-of-time check lowers the same functions for devices that are not there.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import optax

from eijax.config import RunConfig, SftConfig
from eijax.learning import losses, optimizer as optimizer_lib, scoring, sharding, step as step_lib
from eijax.learning.packing import balance_rows, PackedBatch
from eijax.policy.decoder import Decoder


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Learner:
  """abstract: shapes and placements of the TrainState. update: see step.make_update_step."""

  mesh: Mesh
  decoder: Decoder
  optimizer: optax.GradientTransformationExtraArgs
  abstract: step_lib.TrainState
  update: step_lib.UpdateStep
  num_micro_batches: int

  def put(self, batch: PackedBatch) -> PackedBatch:
    """This process's rows of a mini-batch on the devices, dealt so that none waits for another longer than it must."""
    shards = sharding.num_data_shards(self.mesh) // jax.process_count()
    if shards > 1:
      batch = balance_rows(batch, num_micro_batches=self.num_micro_batches, num_shards=shards)
    return sharding.put_batch(batch, self.mesh, self.num_micro_batches)


def run_mesh(config: RunConfig | SftConfig, devices: list | None = None) -> Mesh:
  """The mesh of a run: --mesh, or by default one whose data shards divide the rows of a mini-batch."""
  devices = jax.devices() if devices is None else devices
  rows = config.packing.rows_per_minibatch
  return sharding.make_mesh(config.mesh or sharding.default_mesh(len(devices), rows), devices)


def num_micro_batches(config: RunConfig | SftConfig, mesh: Mesh) -> int:
  """As configured; 0 stands for as many as leave each data shard one row at a time."""
  rows = config.packing.rows_per_minibatch
  return config.learner.num_micro_batches or max(1, rows // sharding.num_data_shards(mesh))


def make_learner(config: RunConfig, mesh: Mesh) -> Learner:
  """Nothing is compiled or computed before the first update.

  Raises:
    UsageError: a parameter that the mesh does not divide, or that cannot be trained.
  """
  decoder, optimizer = Decoder(config.policy), optimizer_lib.make_optimizer(config.optimizer)
  abstract = step_lib.abstract_train_state(step_lib.params_init(decoder), optimizer, mesh)
  score_fn = scoring.make_score_fn(
      decoder, temperature=config.sampling.temperature, chunk_length=config.learner.chunk_length,
      gradient_dtype=config.policy.gradient_dtype)
  update = step_lib.make_update_step(
      score_fn, losses.policy_loss_fn(config.loss), optimizer, mesh, step_lib.state_shardings(abstract))
  return Learner(mesh=mesh, decoder=decoder, optimizer=optimizer, abstract=abstract, update=update,
                 num_micro_batches=num_micro_batches(config, mesh))


def batch_shapes(config: RunConfig, mesh: Mesh, row_length: int) -> PackedBatch:
  """Shapes and placements of a mini-batch as `sharding.put_batch` makes them."""
  parts, rows = num_micro_batches(config, mesh), config.packing.rows_per_minibatch
  placed = sharding.batch_sharding(mesh)

  def one(dtype) -> Any:
    return jax.ShapeDtypeStruct((parts, rows // parts, row_length), dtype, sharding=placed)

  ids, reals = one(jnp.int32), one(jnp.float32)
  return PackedBatch(tokens=ids, targets=ids, positions=ids, segment_ids=ids, loss_mask=one(jnp.bool_),
                     advantages=reals, behavior_log_probs=reals)
