"""Where a sampler's arrays live on the devices of a mesh."""

import dataclasses
import math

from jax.experimental.layout import Format, Layout
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eijax.errors import UsageError
from eijax.learning import sharding
from eijax.policy.config import PolicyConfig
from eijax.sampling.config import SamplerShapes


def check_slots(shapes: SamplerShapes, mesh: Mesh) -> None:
  """Refuse a number of slots that the devices cannot share evenly, with a UsageError."""
  shards = sharding.num_data_shards(mesh)
  if shapes.num_slots % shards:
    raise UsageError(f'num_slots={shapes.num_slots} must be divisible by the data shards of the mesh ({shards}); '
                     f'use {(shapes.num_slots // shards + 1) * shards}')


# A decoded token writes all heads of its cell. The TPU compiler wants these side by side, and where they are not, it copies the
# whole cache into that order and back around the loop: as much memory again.
_CELLS_OUTSIDE_HEADS = Layout((0, 1, 3, 2, 4))


@dataclasses.dataclass(frozen=True)
class Placement:
  """cache: of KVCache arrays [L, B, K, S, H], with their order in memory on TPUs. rows: of arrays [B, ...]. whole: a copy on every device."""

  cache: NamedSharding | Format
  rows: NamedSharding
  whole: NamedSharding


def placement(config: PolicyConfig, mesh: Mesh, num_slots: int) -> Placement:
  """Slots are split over the data axes and, where there are enough, over `sequence`; key-value heads over `tensor` where it divides them."""
  batch = sharding.BATCH_AXES + ('sequence',)
  if num_slots % math.prod(mesh.shape[axis] for axis in batch):
    batch = sharding.BATCH_AXES
  tensor = 'tensor' if config.num_kv_heads % mesh.shape['tensor'] == 0 else None
  cache = NamedSharding(mesh, PartitionSpec(None, batch, tensor))
  return Placement(
      cache=Format(_CELLS_OUTSIDE_HEADS, cache) if mesh.devices.flat[0].platform == 'tpu' else cache,
      rows=NamedSharding(mesh, PartitionSpec(batch)),
      whole=NamedSharding(mesh, PartitionSpec()))
