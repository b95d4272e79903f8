"""Attention of packed rows: the TPU kernel, interpreted, against the plain path; alone and over a mesh."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.learning import sharding
from eijax.policy import attention, embedding
from eijax.policy.config import PolicyConfig
from eijax.policy.decoder import attend_causal

T, ROWS = 256, 4
PLAIN = PolicyConfig(vocab_size=32, num_layers=2, hidden_dim=16, num_heads=4, num_kv_heads=2, head_dim=128, mlp_dim=16,
                     attention='reference')
LOCAL = dataclasses.replace(PLAIN, local_layers=(0,), window=40)


@functools.cache
def inputs(num_kv_heads):
  """Query, key, value and a row's segments: two, one, many, and padding that is a segment of its own."""
  rng = np.random.default_rng(0)
  draw = lambda heads: rng.normal(size=(ROWS, T, heads, 128)).astype(np.float32)
  ids = np.zeros((ROWS, T), np.int32)
  ids[0, :100], ids[0, 100:200] = 1, 2
  ids[1] = 1
  ids[2, :252] = np.repeat(np.arange(1, 10), 28)
  return draw(4), draw(num_kv_heads), draw(num_kv_heads), ids


def attended(config, is_local=False, mesh=None):
  """Output and gradients of a weighted sum of it."""
  query, key, value, ids = inputs(config.num_kv_heads)
  weights = np.random.default_rng(1).normal(size=query.shape).astype(np.float32)

  def total(query, key, value):
    places = jnp.arange(T)
    mask = (ids[:, :, None] == ids[:, None, :]) & (places[None, :, None] >= places[None, None, :])
    if is_local:
      mask &= places[None, :, None] - places[None, None, :] < config.window
    out = attention.attend_rows(config, query, key, value, jnp.asarray(ids), mask, jnp.asarray(is_local), 0.1, attend_causal)
    return jnp.sum(out * weights), out

  def run(*arrays):
    if mesh is None:
      return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(*arrays)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(sharding.logical_axis_rules()):
      return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(*arrays)

  arrays = query, key, value
  if mesh is not None:
    # What an array lies on decides the devices of a program; the mesh in context has none.
    arrays = jax.device_put(arrays, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
  (_, out), gradients = jax.jit(run)(*arrays)
  return jax.device_get((out, gradients))


CASES = {
    'grouped': (PLAIN, False, None),
    'local': (LOCAL, True, None),
    'whole_beside_local': (LOCAL, False, None),
    'over_rows_and_heads': (PLAIN, False, 'fsdp=4,tensor=2'),
    'over_positions': (LOCAL, True, 'data=2,fsdp=2,sequence=2'),
    # One key head on two devices that split the query heads.
    'copied_key_heads': (dataclasses.replace(PLAIN, num_kv_heads=1), False, 'data=2,fsdp=2,tensor=2'),
}


@pytest.mark.parametrize('name', CASES)
def test_splash_equals_reference(name):
  config, is_local, spec = CASES[name]
  mesh = sharding.make_mesh(spec) if spec else None
  actual = attended(dataclasses.replace(config, attention='splash'), is_local, mesh)
  # Scores of order 1 and up to 256 weights a query; float32 in another order. A wrong mask misses by order 1.
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), actual, attended(config, is_local))


@pytest.mark.parametrize('platform, change, length, expected', [
    ('tpu', {}, 256, 'splash'), ('tpu', {}, 200, 'reference'), ('tpu', {'head_dim': 64}, 256, 'reference'), ('cpu', {}, 256, 'reference'),
    ('gpu', {'compute_dtype': 'bfloat16'}, 256, 'cudnn'), ('gpu', {}, 256, 'reference'),
    ('tpu', {'attention': 'reference'}, 256, 'reference')])
def test_auto_follows_platform_and_shapes(platform, change, length, expected):
  config = dataclasses.replace(PLAIN, **{'attention': 'auto'} | change)
  mesh = AbstractMesh((1,), ('data',), (AxisType.Auto,),
                      abstract_device=AbstractDevice(device_kind='any', num_cores=None, platform=platform))
  with jax.sharding.use_abstract_mesh(mesh):
    assert attention.kernel_for(config, length) == expected


def test_splash_refuses_shapes_that_it_cannot_take():
  config = dataclasses.replace(PLAIN, attention='splash')
  with pytest.raises(UsageError, match='attention=splash: rows of 200 tokens are no multiple of 128'):
    attention.kernel_for(config, 200)
  with pytest.raises(UsageError, match='head_dim=64 is no multiple of 128'):
    attention.kernel_for(dataclasses.replace(config, head_dim=64), 256)


@pytest.mark.parametrize('spec', ['fsdp=8', 'data=2,fsdp=2,tensor=2', 'fsdp=2,sequence=2,tensor=2'])
def test_split_embedding_equals_whole(spec):
  rng = np.random.default_rng(0)
  table, tokens = rng.normal(size=(32, 16)).astype(np.float32), rng.integers(0, 32, (8, 12)).astype(np.int32)
  weights = rng.normal(size=(8, 12, 16)).astype(np.float32)
  mesh = sharding.make_mesh(spec)

  def run(table, tokens):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(sharding.logical_axis_rules()):
      return jax.value_and_grad(lambda t: jnp.sum(weights * embedding.embed(t, tokens, jnp.bfloat16).astype(jnp.float32)))(table)

  placed = jax.device_put(table, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('tensor', 'fsdp')))
  value, gradient = jax.jit(run)(placed, tokens)
  rounded = table[tokens].astype(jnp.bfloat16).astype(np.float32)
  np.testing.assert_allclose(value, np.sum(weights * rounded), rtol=1e-5)
  expected = np.zeros_like(table)
  # Each token's gradient is rounded to bfloat16 once; their sum is float32.
  np.add.at(expected, tokens, weights.astype(jnp.bfloat16).astype(np.float32))
  np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5)
