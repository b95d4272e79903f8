"""Attention of packed rows: which kernel computes it, and how it is split over a mesh.

`reference` is plain jax and runs everywhere. `splash` is the Pallas kernel that jax brings for
TPUs: it never holds the scores of a row, and skips blocks that no query may see. `cudnn` is
the fused kernel of NVIDIA GPUs. All compute the same function.

Axes: B rows, T query token, S key token, N query heads, K key-value heads, H head dim.
"""

from collections.abc import Callable
import math

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from eijax.errors import UsageError
from eijax.policy.config import PolicyConfig

# Name of what the remat policy `attention` saves: the output and, of a kernel, its softmax normaliser.
SAVED_NAME = 'attention'
# Splash works on tiles of 128 lanes, so rows and heads come in multiples of it; larger blocks mean fewer loads of
# the other operand, until they no longer fit the vector memory.
_LANES = 128
_MAX_BLOCK = 512
# What cuDNN's fused attention takes; source: jax.nn.dot_product_attention.
_CUDNN_MAX_HEAD_DIM = 128

Reference = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, float], jax.Array]


def context_mesh() -> AbstractMesh | None:
  """The mesh that this is traced for; None outside of an update step, and for a single device."""
  mesh = jax.sharding.get_abstract_mesh()
  return None if mesh.empty or mesh.size == 1 else mesh


def mesh_axes(name: str) -> tuple[str, ...]:
  """Mesh axes that a logical axis is split over, by the rules in force; those of one device split nothing."""
  mesh, axes = context_mesh(), nn.logical_to_mesh_axes((name,))[0]
  if mesh is None or axes is None:
    return ()
  return tuple(axis for axis in ((axes,) if isinstance(axes, str) else axes) if mesh.shape[axis] > 1)


def _platform() -> str:
  """Of the devices that this is traced for, as far as a mesh in context says."""
  device = jax.sharding.get_abstract_mesh().abstract_device
  return device.platform if device is not None else ''


def _ways(name: str) -> int:
  return math.prod(context_mesh().shape[axis] for axis in mesh_axes(name))


def _splash_fault(config: PolicyConfig, row_length: int) -> str:
  """Why splash cannot take these shapes; empty if it can."""
  ways = _ways('sequence')
  if row_length % (_LANES * ways):
    return f'rows of {row_length} tokens are no multiple of {_LANES * ways}'
  return f'head_dim={config.head_dim} is no multiple of {_LANES}' if config.head_dim % _LANES else ''


def kernel_for(config: PolicyConfig, row_length: int) -> str:
  """What computes the attention of rows of row_length tokens: reference, splash or cudnn.

  `auto` follows the platform of the mesh in context, where the shapes suit its kernel.

  Raises:
    UsageError: attention=splash for shapes that it cannot take.
  """
  if config.attention == 'splash':
    fault = _splash_fault(config, row_length)
    if fault:
      raise UsageError(f'attention=splash: {fault}; use other --row_lengths, or attention=reference')
  if config.attention != 'auto':
    return config.attention
  platform = _platform()
  if platform == 'tpu' and not _splash_fault(config, row_length):
    return 'splash'
  suits = config.compute_dtype == 'bfloat16' and config.head_dim <= _CUDNN_MAX_HEAD_DIM and not config.head_dim % 8
  return 'cudnn' if platform in ('gpu', 'cuda') and suits and _ways('sequence') == 1 else 'reference'


def attend_rows(
    config: PolicyConfig, query: jax.Array, key: jax.Array, value: jax.Array, segment_ids: jax.Array,
    mask: jax.Array | None, is_local: jax.Array, scale: float, reference: Reference,
) -> jax.Array:
  """Each query looks at the earlier tokens of its own segment, and at itself.

  Args:
    query: [B, T, N, H].
    key, value: [B, T, K, H].
    segment_ids: int32[B, T].
    mask: bool[B, T, S], the same rule with the window of local layers; None for a kernel that needs none.
    is_local: bool[], whether the layer sees the last `window` tokens only.
    scale: factor on the scores.
    reference: `decoder.attend_causal`.
  Returns:
    [B, T, N, H].
  """
  kernel = kernel_for(config, query.shape[1])
  if kernel == 'splash':
    return _splash(config, query, key, value, segment_ids, is_local, scale)
  if kernel == 'cudnn':
    attended = jax.nn.dot_product_attention(
        query, key, value, mask=mask[:, None], scale=scale, implementation='cudnn')
  else:
    attended = reference(query, key.swapaxes(1, 2), value.swapaxes(1, 2), mask, scale)
  return checkpoint_name(attended, SAVED_NAME)


def _block(length: int) -> int:
  """The largest block of whole lanes that divides a row."""
  return next(size for size in range(_MAX_BLOCK, 0, -_LANES) if length % size == 0)


def _splash_kernels(config: PolicyConfig, length: int, num_heads: int, shards: int) -> list:
  """The kernel of layers that see the whole segment and, where there are local layers, that of those."""
  # Here, because it takes a second to import and most runs are not on a TPU.
  from jax.experimental.pallas.ops.tpu import splash_attention as splash  # pylint: disable=import-outside-toplevel

  block = _block(length // shards)
  sizes = splash.BlockSizes(**{name: block for name in (
      'block_q', 'block_kv', 'block_kv_compute', 'block_q_dkv', 'block_kv_dkv', 'block_kv_dkv_compute', 'block_q_dq',
      'block_kv_dq')})
  masks = [splash.CausalMask((length, length))]
  if config.local_layers:
    masks.append(splash.LocalMask((length, length), (config.window - 1, 0), offset=0))
  # Without a TPU the kernel is interpreted, operation by operation: right, slow, and enough for tests.
  return [
      splash.make_splash_mha(
          splash.MultiHeadMask([mask] * num_heads), block_sizes=sizes, head_shards=1, q_seq_shards=shards,
          residual_checkpoint_name=SAVED_NAME, interpret=_platform() != 'tpu') for mask in masks
  ]


def _splash(config, query, key, value, segment_ids, is_local, scale):
  """`attend_rows` by the splash kernel; every device has its own rows, heads and queries, and all keys of them."""
  mesh = context_mesh()
  head_ways, length = _ways('heads'), query.shape[1]
  if config.num_kv_heads % head_ways:
    # Fewer key heads than devices to split them over: each query head gets a copy of its own.
    key, value = (jnp.repeat(x, query.shape[2] // x.shape[2], axis=2) for x in (key, value))
  # In float32: a rounded factor would shift every score by the same share.
  query = (query.astype(jnp.float32) * scale).astype(query.dtype)
  kernels = _splash_kernels(config, length, query.shape[2] // head_ways, _ways('sequence'))

  def local(query, key, value, query_ids, key_ids, is_local, *kernels):
    by_head = lambda x: x.swapaxes(1, 2)
    ids = _segment_ids(query_ids, key_ids)
    run = lambda kernel: lambda: jax.vmap(kernel)(by_head(query), by_head(key), by_head(value), ids)
    if len(kernels) == 1:
      return by_head(run(kernels[0])())
    return by_head(jax.lax.cond(is_local, run(kernels[1]), run(kernels[0])))

  arrays = query, key, value, segment_ids, segment_ids, is_local, *kernels
  if mesh is None:
    return local(*arrays)
  batch, sequence, heads = (mesh_axes(name) or None for name in ('batch', 'sequence', 'heads'))
  split, whole = PartitionSpec(batch, sequence, heads), PartitionSpec(batch, None, heads)
  kernel_specs = [kernel.manual_sharding_spec(NamedSharding(mesh, PartitionSpec(None, sequence))) for kernel in kernels]
  return jax.shard_map(
      local, mesh=mesh, out_specs=split, check_vma=False,
      in_specs=(split, whole, whole, PartitionSpec(batch, sequence), PartitionSpec(batch), PartitionSpec(), *kernel_specs),
  )(*arrays)


def _segment_ids(query_ids, key_ids):
  from jax.experimental.pallas.ops.tpu import splash_attention as splash  # pylint: disable=import-outside-toplevel

  return splash.SegmentIds(query_ids, key_ids)
