"""Mesh specs, logical axes and batch placement."""

import types

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec
import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.learning import hosts, sharding
from learning_cases import batch


@pytest.mark.parametrize('spec, devices, expected', [
    ('', 8, 'data=1,fsdp=8,sequence=1,tensor=1'),
    ('', 1, 'data=1,fsdp=1,sequence=1,tensor=1'),
    ('tensor=2', 8, 'data=1,fsdp=4,sequence=1,tensor=2'),
    ('data=2, fsdp=2, tensor=2', 8, 'data=2,fsdp=2,sequence=1,tensor=2'),
    ('sequence=2', 8, 'data=1,fsdp=4,sequence=2,tensor=1'),
    ('data=8,fsdp=1', 8, 'data=8,fsdp=1,sequence=1,tensor=1'),
])
def test_mesh_specs(spec, devices, expected):
  assert str(sharding.parse_mesh(spec, devices)) == expected


@pytest.mark.parametrize('spec, devices, message', [
    ('data=1,fsdp=8,tensor=2', 8, 'data=1,fsdp=8,sequence=1,tensor=2 = 16 devices, but 8 are present; .* product is 8'),
    ('tensor=3', 8, 'data=1,fsdp=2,sequence=1,tensor=3 = 6 devices, but 8 are present'),
    ('fsdp=2', 1, '= 2 devices, but 1 is present'),
    ('model=8', 8, "'model=8' must be AXIS=SIZE with AXIS one of data, fsdp, sequence, tensor"),
    ('fsdp=-1', 8, "'fsdp=-1' must be"),
    ('fsdp', 8, "'fsdp' must be"),
    ('data=2,data=4', 8, "'data=4' must be"),
])
def test_bad_mesh_specs_are_refused_with_numbers(spec, devices, message):
  with pytest.raises(UsageError, match=message):
    sharding.parse_mesh(spec, devices)


def test_make_mesh_uses_every_device_and_auto_axes():
  mesh = sharding.make_mesh('data=2,tensor=2')
  assert dict(mesh.shape) == {'data': 2, 'fsdp': 2, 'sequence': 1, 'tensor': 2}
  assert mesh.axis_types == (AxisType.Auto,) * 4
  assert sharding.num_data_shards(mesh) == 4


def test_partition_specs_follow_the_table():
  mesh = sharding.make_mesh('data=2,fsdp=2,tensor=2')
  spec = lambda names, shape: sharding.partition_spec(names, shape, mesh, 'w')
  assert spec(('layers', 'embed', 'heads', 'head_dim'), (3, 4, 2, 5)) == PartitionSpec(None, 'fsdp', 'tensor', None)
  assert spec(('batch', 'sequence'), (8, 3)) == PartitionSpec(('data', 'fsdp'), 'sequence')
  # One key-value head on two tensor devices: whole on both, by rule.
  assert spec(('embed', 'kv_heads', 'head_dim'), (4, 1, 5)) == PartitionSpec('fsdp', None, None)
  with pytest.raises(UsageError, match="w: axis 'embed' has size 5, which mesh fsdp=2 does not divide"):
    spec(('embed',), (5,))
  with pytest.raises(ValueError, match="logical axis 'width' has no rule; known are batch"):
    spec(('width',), (4,))
  with pytest.raises(ValueError, match="two dimensions on mesh axis 'tensor'"):
    spec(('heads', 'mlp'), (4, 4))
  with pytest.raises(ValueError, match='1 logical names'):
    spec(('embed',), (4, 4))


def test_tree_shardings_unbox_and_refuse_nameless_arrays():
  mesh = sharding.make_mesh('fsdp=8')
  box = nn.LogicallyPartitioned(jax.ShapeDtypeStruct((16, 4), jnp.float32), ('embed', 'mlp'))
  tree = {'w': box, 'count': jax.ShapeDtypeStruct((), jnp.int32)}
  shardings = sharding.tree_shardings(tree, mesh)
  assert shardings['w'].spec == PartitionSpec('fsdp', 'tensor') and shardings['count'].spec == PartitionSpec()
  with pytest.raises(ValueError, match=r'w: shape \(3,\) has no logical axis names'):
    sharding.tree_shardings({'w': jax.ShapeDtypeStruct((3,), jnp.float32)}, mesh)


def test_batches_are_folded_into_micro_batches_on_every_device():
  packed = batch(rows=16)
  mesh = sharding.make_mesh('data=2,fsdp=4')
  placed = sharding.put_batch(packed, mesh, 2)
  assert placed.tokens.shape == (2, 8, 32)
  assert {s.data.shape for s in placed.tokens.addressable_shards} == {(2, 1, 32)}
  np.testing.assert_array_equal(np.asarray(placed.tokens).reshape(16, 32), packed.tokens)
  with pytest.raises(UsageError, match=r'=16 must be .* num_micro_batches \(4\) times the data shards \(8\); use 32$'):
    sharding.put_batch(packed, mesh, 4)
  with pytest.raises(UsageError, match='rows_per_minibatch=12 .* use 8 or 16$'):
    sharding.put_batch(batch(rows=12), mesh, 1)


def test_positions_are_split_over_the_sequence_axis():
  mesh = sharding.make_mesh('fsdp=2,sequence=4')
  placed = sharding.put_batch(batch(rows=16), mesh, 2)
  assert {s.data.shape for s in placed.tokens.addressable_shards} == {(2, 4, 8)}
  with pytest.raises(UsageError, match=r'row_lengths: 30 must be divisible by the sequence axis of the mesh \(4\); use 32'):
    sharding.check_row_length(30, mesh)


@pytest.mark.parametrize('devices, rows, expected', [
    (8, 16, 'fsdp=8'), (8, 8, 'fsdp=8'), (16, 8, 'fsdp=8,sequence=2'), (256, 128, 'fsdp=128,sequence=2'), (8, 6, 'fsdp=2,sequence=4')])
def test_more_devices_than_rows_share_positions(devices, rows, expected):
  assert sharding.default_mesh(devices, rows) == expected
  assert sharding.parse_mesh(expected, devices).num_devices == devices


def test_each_process_gives_its_share_of_rows(monkeypatch):
  packed = batch(rows=16)
  monkeypatch.setattr(jax, 'process_count', lambda: 4)
  shares = []
  for index in range(4):
    monkeypatch.setattr(jax, 'process_index', lambda index=index: index)
    shares.append(sharding.share_of_rows(packed).tokens)
  assert {share.shape for share in shares} == {(4, 32)}
  np.testing.assert_array_equal(np.concatenate(shares), packed.tokens)


@pytest.mark.parametrize('shape, fits', [((1, 8, 1, 1), True), ((2, 2, 1, 2), True), ((1, 2, 1, 4), True), ((1, 2, 2, 2), True),
                                         ((1, 1, 1, 8), False), ((1, 1, 4, 2), False)])
def test_what_belongs_together_stays_in_one_process(monkeypatch, shape, fits):
  # Two processes of four devices each.
  device = lambda i: types.SimpleNamespace(process_index=i // 4)
  mesh = types.SimpleNamespace(
      devices=np.array([device(i) for i in range(8)], object).reshape(shape), shape=dict(zip(sharding.MESH_AXES, shape)))
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 4)
  if fits:
    hosts.check_processes(mesh)
  else:
    with pytest.raises(UsageError, match='over processes of 4 devices each; use sequence and tensor axes whose product divides 4'):
      hosts.check_processes(mesh)
