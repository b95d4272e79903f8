"""Where arrays live: the device mesh and the one table from logical to mesh axes.

Mesh axes: `data` replicates parameters and splits the batch, `fsdp` splits both,
`sequence` splits the positions of rows, `tensor` splits heads, mlp and vocabulary.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np

from eijax.errors import UsageError
from eijax.learning.packing import PackedBatch

MESH_AXES = ('data', 'fsdp', 'sequence', 'tensor')
BATCH_AXES = ('data', 'fsdp')

# Logical axis -> mesh axes. Parameters name theirs where they are declared.
LOGICAL_AXES: Mapping[str, str | tuple[str, ...] | None] = {
    'batch': BATCH_AXES,
    'sequence': 'sequence',
    # Positions of the stream between layers. Where heads and mlp are split, each device would keep a copy of it.
    'residual_sequence': ('sequence', 'tensor'),
    'layers': None,
    'embed': 'fsdp',
    'norm': None,
    'heads': 'tensor',
    'kv_heads': 'tensor',
    'head_dim': None,
    'mlp': 'tensor',
    'vocab': 'tensor',
    'rank': None,
}

# Split where the mesh divides them, else whole on every device of that mesh axis. Published policies have
# as few as two to eight key-value heads, and copies of these cost little; any other mismatch is an error.
REPLICATED_IF_INDIVISIBLE = frozenset({'kv_heads'})


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
  """Devices along each mesh axis."""

  data: int
  fsdp: int
  sequence: int
  tensor: int

  @property
  def num_devices(self) -> int:
    return self.data * self.fsdp * self.sequence * self.tensor

  def __str__(self) -> str:
    return ','.join(f'{axis}={getattr(self, axis)}' for axis in MESH_AXES)


def parse_mesh(spec: str, num_devices: int) -> MeshShape:
  """Read `data=1,fsdp=8,tensor=2`. Axes left out are 1, except that fsdp takes the devices left over.

  Raises:
    UsageError: bad syntax, unknown axis, or a product other than num_devices.
  """
  sizes = {}
  for part in filter(None, (p.strip() for p in spec.split(','))):
    axis, _, size = (p.strip() for p in part.partition('='))
    if axis not in MESH_AXES or not size.isdecimal() or int(size) < 1 or axis in sizes:
      raise UsageError(f'mesh={spec!r}: {part!r} must be AXIS=SIZE with AXIS one of {", ".join(MESH_AXES)}, '
                       'each once, and SIZE a positive integer; e.g. data=1,fsdp=8,tensor=2')
    sizes[axis] = int(size)
  ones = dict.fromkeys(MESH_AXES, 1) | sizes
  others = ones['data'] * ones['sequence'] * ones['tensor']
  shape = MeshShape(**ones | {'fsdp': sizes.get('fsdp', max(1, num_devices // others))})
  if shape.num_devices != num_devices:
    raise UsageError(f'mesh={spec!r} means {shape} = {shape.num_devices} devices, but {num_devices} '
                     f'{"is" if num_devices == 1 else "are"} present; '
                     f'use sizes whose product is {num_devices}, e.g. fsdp={num_devices}')
  return shape


def default_mesh(num_devices: int, rows: int) -> str:
  """The spec for `rows` rows of a mini-batch: all devices on fsdp, unless there are more than rows.

  Then what is left over shares the positions of a row, which needs no other division of the policy.
  """
  if num_devices <= rows:
    return f'fsdp={num_devices}'
  fsdp = math.gcd(num_devices, rows)
  return f'fsdp={fsdp},sequence={num_devices // fsdp}'


def make_mesh(spec: str = '', devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh of `spec` over `devices` (default: all). See `parse_mesh`."""
  devices = jax.devices() if devices is None else devices
  shape = parse_mesh(spec, len(devices))
  # Auto on every axis, said explicitly: newer releases of jax default to Explicit.
  sizes = dataclasses.astuple(shape)
  # A slice of 8 x 8 chips is also 32 x 2, which jax.make_mesh refuses.
  grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  return Mesh(grid, MESH_AXES, axis_types=(AxisType.Auto,) * len(sizes))


def num_data_shards(mesh: Mesh) -> int:
  """Ways in which the rows of a batch are split."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def logical_axis_rules() -> tuple[tuple[str, str | tuple[str, ...] | None], ...]:
  """LOGICAL_AXES in the form that flax.linen.logical_axis_rules takes."""
  return tuple(LOGICAL_AXES.items())


def partition_spec(names: Sequence[str | None], shape: Sequence[int], mesh: Mesh, where: str) -> PartitionSpec:
  """Mesh axes of an array whose dimensions have logical names.

  Raises:
    ValueError: a name without a rule, or two dimensions on one mesh axis.
    UsageError: a dimension that its mesh axes do not divide.
  """
  if len(names) != len(shape):
    raise ValueError(f'{where}: {len(names)} logical names {tuple(names)} for shape {tuple(shape)}')
  spec, taken = [], set()
  for name, size in zip(names, shape):
    if name is not None and name not in LOGICAL_AXES:
      raise ValueError(f'{where}: logical axis {name!r} has no rule; known are {", ".join(LOGICAL_AXES)}')
    axes = LOGICAL_AXES[name] if name is not None else None
    flat = () if axes is None else (axes,) if isinstance(axes, str) else axes
    ways = math.prod(mesh.shape[axis] for axis in flat)
    if size % ways and name in REPLICATED_IF_INDIVISIBLE:
      axes, flat = None, ()
    elif size % ways:
      raise UsageError(f'{where}: axis {name!r} has size {size}, which mesh {"x".join(flat)}={ways} does not divide; '
                       f'use a mesh size that divides {size}')
    if taken & set(flat):
      raise ValueError(f'{where}: logical axes {tuple(names)} put two dimensions on mesh axis {flat[0]!r}')
    taken |= set(flat)
    spec.append(axes)
  return PartitionSpec(*spec)


def _is_boxed(leaf: Any) -> bool:
  return isinstance(leaf, nn.LogicallyPartitioned)


def tree_shardings(abstract: Any, mesh: Mesh) -> Any:
  """NamedShardings of a tree whose leaves are boxed with logical names; bare leaves are replicated.

  Args:
    abstract: as jax.eval_shape gives it, boxes (flax LogicallyPartitioned) included.
    mesh: devices.
  Returns:
    The tree without boxes, a NamedSharding at each leaf.
  Raises:
    ValueError, UsageError: see `partition_spec`; every bare array must be a scalar.
  """

  def one(path, leaf):
    where = jax.tree_util.keystr(path, simple=True, separator='/')
    if _is_boxed(leaf):
      return NamedSharding(mesh, partition_spec(leaf.names, leaf.value.shape, mesh, where))
    if leaf.shape:
      raise ValueError(f'{where}: shape {leaf.shape} has no logical axis names; only scalars may go without')
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree_util.tree_map_with_path(one, abstract, is_leaf=_is_boxed)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Of device batches [micro-batch, row, T]: rows and positions are split, micro-batches are not."""
  return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES, LOGICAL_AXES['sequence']))


def check_row_length(length: int, mesh: Mesh) -> None:
  """Refuse rows whose positions the devices cannot share evenly, with a UsageError."""
  ways = mesh.shape['sequence']
  if length % ways:
    raise UsageError(f'row_lengths: {length} must be divisible by the sequence axis of the mesh ({ways}); '
                     f'use {-(-length // ways) * ways}')


def check_rows(rows: int, mesh: Mesh, num_micro_batches: int, name: str = 'rows_per_minibatch') -> None:
  """Refuse a number of rows that micro-batches and devices cannot share evenly.

  Raises:
    UsageError: rows not divisible by micro-batches times data shards.
  """
  shards = num_data_shards(mesh)
  unit = num_micro_batches * shards
  if rows % unit:
    fitting = [n for n in (rows // unit * unit, (rows // unit + 1) * unit) if n]
    raise UsageError(f'{name}={rows} must be divisible by num_micro_batches ({num_micro_batches}) times '
                     f'the data shards ({shards}); use {" or ".join(map(str, fitting))}')


def share_of_rows(batch: PackedBatch) -> PackedBatch:
  """This process's rows of a batch that every process holds."""
  count, index = jax.process_count(), jax.process_index()
  return jax.tree.map(lambda x: x[index * len(x) // count:(index + 1) * len(x) // count], batch)


def put_batch(batch: PackedBatch, mesh: Mesh, num_micro_batches: int) -> PackedBatch:
  """Move a mini-batch to the devices as [num_micro_batches, rows, T].

  The fold happens here, on the host, so that each micro-batch is spread over all devices and none is moved
  between them later. With several processes each gives its own rows.

  Raises:
    UsageError: see `check_rows`.
  """
  check_rows(batch.tokens.shape[0] * jax.process_count(), mesh, num_micro_batches)
  check_row_length(batch.tokens.shape[1], mesh)
  sharding = batch_sharding(mesh)

  def put(x):
    folded = np.asarray(x).reshape(num_micro_batches, -1, x.shape[1])
    return jax.make_array_from_process_local_data(sharding, folded)

  return jax.tree.map(put, batch)
