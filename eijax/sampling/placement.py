"""Where a sampler's arrays live on the devices of a mesh."""

import dataclasses

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


@dataclasses.dataclass(frozen=True)
class Placement:
  """cache: of KVCache arrays [L, B, K, S, H]. rows: of arrays [B, ...]. whole: a copy on every device."""

  cache: NamedSharding
  rows: NamedSharding
  whole: NamedSharding


def placement(config: PolicyConfig, mesh: Mesh) -> Placement:
  """Slots are split over the data axes, key-value heads over `tensor` where it divides them."""
  tensor = 'tensor' if config.num_kv_heads % mesh.shape['tensor'] == 0 else None
  return Placement(
      cache=NamedSharding(mesh, PartitionSpec(None, sharding.BATCH_AXES, tensor)),
      rows=NamedSharding(mesh, PartitionSpec(sharding.BATCH_AXES)),
      whole=NamedSharding(mesh, PartitionSpec()))
