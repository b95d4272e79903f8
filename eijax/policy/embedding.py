"""Look up tokens in an embedding table that is split over devices, without bringing it together.

Axes: B rows, T positions, V vocabulary, D model.
"""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from eijax.policy.attention import context_mesh, mesh_axes


def embed(table: jax.Array, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Rows of the table, each cast to dtype; gradients are added up in the type of the table.

  Split over D, the devices exchange tokens and not the table: each looks its own columns up for the rows of all
  devices that it shares the table with, and one all-to-all makes whole columns of own rows. For 2,048 tokens a row and a
  vocabulary of 152,000 that is a tenth of the bytes, and neither the table nor its gradient is ever whole.

  Args:
    table: [V, D].
    tokens: int32[B, T].
  Returns:
    dtype[B, T, D].
  """
  mesh = context_mesh()
  if mesh is None:
    return jnp.take(table, tokens, axis=0).astype(dtype)
  rows, positions, columns, vocab = (mesh_axes(name) for name in ('batch', 'sequence', 'embed', 'vocab'))
  # Neighbours on the axes of the columns hold neighbouring rows.
  assert rows[len(rows) - len(columns):] == columns, (rows, columns)

  def local(table, tokens):
    shape, tokens = tokens.shape, tokens.reshape(-1)
    if columns:
      tokens = jax.lax.all_gather(tokens, columns, axis=0, tiled=True)
    if vocab:
      tokens = tokens - jax.lax.axis_index(vocab) * table.shape[0]
      here = (tokens >= 0) & (tokens < table.shape[0])
      found = jnp.take(table, jnp.where(here, tokens, 0), axis=0)
      # One device adds the row, all others zero: exact in any type.
      found = jax.lax.psum(jnp.where(here[..., None], found, 0).astype(dtype), vocab)
    else:
      found = jnp.take(table, tokens, axis=0).astype(dtype)
    if columns:
      found = jax.lax.all_to_all(found, columns, split_axis=0, concat_axis=1, tiled=True)
    return found.reshape(*shape, -1)

  return jax.shard_map(
      local, mesh=mesh, in_specs=(PartitionSpec(vocab or None, columns or None), PartitionSpec(rows or None, positions or None)),
      out_specs=PartitionSpec(rows or None, positions or None))(table, tokens)
