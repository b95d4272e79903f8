"""The devices of one process within a mesh of many: where it samples by itself.

Training is one program over all devices. Sampling is not: each process runs as many programs as its talks need, on a mesh of its
own devices, so the weights come to it whole, once a step.
"""

import math
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
import numpy as np

from eijax.errors import UsageError
from eijax.learning import sharding

_HOSTS = 'host'


def check_processes(mesh: Mesh) -> None:
  """Refuse a mesh whose data shards are not dealt evenly to the processes, each shard to one.

  Raises:
    UsageError: names the axis and sizes that fit.
  """
  local = jax.local_device_count()
  owners = np.vectorize(lambda device: device.process_index)(mesh.devices).reshape(sharding.num_data_shards(mesh), -1)
  counts = np.bincount(owners[:, 0], minlength=jax.process_count())
  if np.any(owners != owners[:, :1]) or np.any(counts != counts[0]):
    raise UsageError(f'mesh {dict(mesh.shape)} splits what belongs together over processes of {local} devices each; '
                     f'use sequence and tensor axes whose product divides {local}')


def local_mesh(mesh: Mesh) -> Mesh:
  """The mesh that this process samples on: `mesh` itself where there is no other process, else one of its own devices.

  As much of the tensor axis as fits stays; the other devices are on fsdp.
  """
  if jax.process_count() == 1:
    return mesh
  return _as_mesh(_local_devices(mesh, jax.process_index()), sharding.MESH_AXES)


def copy_to_hosts(params: Any, mesh: Mesh, abstract: Any) -> Any:
  """The params on the local mesh of each process: one all-gather between processes, which all call this.

  Args:
    params: placed on `mesh`.
    abstract: jax.ShapeDtypeStructs with shardings on `local_mesh(mesh)`.
  """
  if jax.process_count() == 1:
    return params
  # The local meshes side by side: what has no axis here is the same in every process.
  hosts = _as_mesh(np.stack([_local_devices(mesh, i) for i in range(jax.process_count())]), (_HOSTS, *sharding.MESH_AXES))
  copies = jax.device_put(params, jax.tree.map(lambda leaf: NamedSharding(hosts, leaf.sharding.spec), abstract))
  return jax.tree.map(
      lambda copy, leaf: jax.make_array_from_single_device_arrays(
          leaf.shape, leaf.sharding, [shard.data for shard in copy.addressable_shards]),
      copies, abstract)


def _local_devices(mesh: Mesh, process: int) -> np.ndarray:
  """Devices of a process [1, fsdp, 1, tensor], in the order of the mesh; sampling knows no sequence axis."""
  devices = [device for device in mesh.devices.flat if device.process_index == process]
  tensor = math.gcd(mesh.shape['tensor'], len(devices))
  return np.array(devices, object).reshape(1, -1, 1, tensor)


def _as_mesh(devices: np.ndarray, names: tuple[str, ...]) -> Mesh:
  return Mesh(devices, names, axis_types=(AxisType.Auto,) * len(names))
