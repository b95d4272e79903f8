"""Weights of a Hugging Face folder straight into the shards of a policy's params.

Each leaf is made where it lives, and filled in place block by block: the host holds a
few blocks beside what its own devices keep, whatever the size of a tensor or of a
stack of layers.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np

from eijax.errors import DataError
from eijax.hf.files import WeightFiles
from eijax.hf.names import LAYERS, Place, expected_tensors, places
from eijax.policy.config import PolicyConfig

_BLOCK_BYTES = 2**23
# Blocks that may be on their way at once.
_IN_FLIGHT = 2


def named_leaves(tree: Any) -> dict[str, Any]:
  """Dotted name -> leaf of a params tree, e.g. layers.query.kernel."""
  paths = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='.'): leaf for path, leaf in paths}


def check_weights(files: WeightFiles, config: PolicyConfig, abstract: Any) -> None:
  """Refuse a folder whose tensors are not those of the policy, without reading any; see WeightFiles.check."""
  shapes = {name: leaf.shape for name, leaf in named_leaves(abstract).items()}
  files.check(expected_tensors(places(config), shapes), tied=config.tie_embeddings)


def load_params(
    files: WeightFiles, config: PolicyConfig, abstract: Any, *, on_bytes: Callable[[int], None] = lambda _: None,
) -> Any:
  """Params of a policy, each placed as told.

  Args:
    files: of the folder.
    config: read from the same folder.
    abstract: params as jax.ShapeDtypeStructs with NamedShardings; weights are rounded to their dtypes. The
      axis of the layers and all but the first of the axes that share one of a tensor must be whole.
    on_bytes: told how many bytes of the files have been read.
  Raises:
    DataError: see `check_weights`; also a weight that is not finite, or a file that cannot be read.
  """
  check_weights(files, config, abstract)
  table = places(config)
  filled = {name: _load_leaf(files, table[name], name, leaf, on_bytes) for name, leaf in named_leaves(abstract).items()}
  return jax.tree.unflatten(jax.tree.structure(abstract), list(filled.values()))


@dataclasses.dataclass(frozen=True)
class _Layout:
  """How the blocks of one layer of a leaf are laid out, here and in the files.

  groups: see Place. shape, spec: of the layer. local: shape of one device's part. num_rows: of a block,
  along axis `row_axis`.
  """

  groups: tuple[tuple[int, ...], ...]
  shape: tuple[int, ...]
  spec: tuple[Any, ...]
  local: tuple[int, ...]
  num_rows: int

  @property
  def row_axis(self) -> int:
    return self.groups[0][0]

  def block(self, rows: int) -> tuple[int, ...]:
    """Shape of one device's part of a block."""
    return tuple(rows if axis == self.row_axis else size for axis, size in enumerate(self.local))

  @property
  def raw_spec(self) -> PartitionSpec:
    return PartitionSpec(*(self.spec[group[0]] for group in self.groups))

  def slices(self, index: tuple[slice, ...], start: int, rows: int) -> tuple[slice, ...]:
    """Part of the tensor for rows start..start+rows of the device whose part of the layer is `index`."""
    result = []
    for group in self.groups:
      first, inner = group[0], math.prod(self.shape[axis] for axis in group[1:])
      low = index[first].start or 0
      low, size = (low + start, rows) if first == self.row_axis else (low, self.local[first])
      result.append(slice(low * inner, (low + size) * inner))
    return tuple(result)


def _layout(place: Place, shape: tuple[int, ...], sharding: NamedSharding, stacked: bool, item_bytes: int) -> _Layout:
  spec = tuple(sharding.spec) + (None,) * (len(shape) - len(sharding.spec))
  local = sharding.shard_shape(shape)
  if stacked:
    assert spec[0] is None, 'the axis of the layers must be whole'
    shape, spec, local = shape[1:], spec[1:], local[1:]
  assert all(spec[axis] is None for group in place.groups for axis in group[1:]), 'only the first of merged axes is split'
  row_axis = place.groups[0][0]
  row_bytes = item_bytes * math.prod(local) // local[row_axis]
  return _Layout(place.groups, shape, spec, local, max(1, min(local[row_axis], _BLOCK_BYTES // row_bytes)))


def _load_leaf(files: WeightFiles, place: Place, name: str, leaf: jax.ShapeDtypeStruct, on_bytes) -> jax.Array:
  stacked, sharding = name.startswith(LAYERS), leaf.sharding
  layout = _layout(place, leaf.shape, sharding, stacked, max(4, leaf.dtype.itemsize))
  parts = {device: index[1:] if stacked else index
           for device, index in sharding.addressable_devices_indices_map(leaf.shape).items()}
  write = _writer(layout, sharding, stacked)
  array = jnp.zeros(leaf.shape, leaf.dtype, device=sharding)
  for layer in range(leaf.shape[0] if stacked else 1):
    tensor = place.name.format(layer=layer)
    sound = []
    for start in range(0, layout.local[layout.row_axis], layout.num_rows):
      rows = min(layout.num_rows, layout.local[layout.row_axis] - start)
      raw = _raw_block(files, tensor, layout, parts, sharding.mesh, start, rows)
      array, finite = write(array, raw, np.int32(layer), np.int32(start))
      sound.append(finite)
      jax.block_until_ready(sound[-_IN_FLIGHT:][0])
    if not all(np.all(shard.data) for finite in sound for shard in finite.addressable_shards):
      raise DataError(f'{files.tensors[tensor].path}: {tensor} holds a NaN or an infinity; download the file again')
    on_bytes(files.tensors[tensor].num_bytes)
  return array


def _raw_block(files, tensor: str, layout: _Layout, parts: Mapping, mesh, start: int, rows: int) -> jax.Array:
  """A block of every device's part, as stored, on the device that it is for."""
  read, arrays = {}, []
  for device, index in parts.items():
    slices = layout.slices(index, start, rows)
    key = tuple((s.start, s.stop) for s in slices)  # Devices with the same part share one reading.
    if key not in read:
      read[key] = files.read(tensor, slices)
    arrays.append(jax.device_put(read[key], device))
  sharding = NamedSharding(mesh, layout.raw_spec)
  block = layout.block(rows)
  local = [math.prod(block[axis] for axis in group) for group in layout.groups]
  ways = [size // layout.local[axis] for axis, size in enumerate(layout.shape)]
  whole = tuple(size * ways[group[0]] for size, group in zip(local, layout.groups))
  return jax.make_array_from_single_device_arrays(whole, sharding, arrays)


@functools.cache  # Leaves of one shape share a compiled program.
def _writer(layout: _Layout, sharding: NamedSharding, stacked: bool):
  """Jitted (array, raw block, layer, start) -> (the array with the block in it, bool per device: all finite)."""
  order = [axis for group in layout.groups for axis in group]

  def write(array, raw, layer, start):
    rows = raw.shape[0] // math.prod(layout.local[axis] for axis in layout.groups[0][1:])
    block = layout.block(rows)
    turned = raw.reshape([block[axis] for axis in order]).transpose([order.index(axis) for axis in range(len(order))])
    begin = [start if axis == layout.row_axis else 0 for axis in range(len(order))]
    if stacked:
      turned, begin = turned[None], [layer, *begin]
    finite = jnp.isfinite(raw).all()[None]
    return jax.lax.dynamic_update_slice(array, turned.astype(array.dtype), begin), finite

  mesh, everywhere = sharding.mesh, PartitionSpec(sharding.mesh.axis_names)
  mapped = jax.shard_map(
      write, mesh=mesh, in_specs=(sharding.spec, layout.raw_spec, PartitionSpec(), PartitionSpec()),
      out_specs=(sharding.spec, everywhere), check_vma=False)
  return jax.jit(mapped, donate_argnums=0)
