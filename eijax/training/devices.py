"""The devices of a run."""

import dataclasses

import jax
from jax.sharding import Mesh

from eijax.config import RunConfig
from eijax.errors import UsageError
from eijax.learning import hosts, sharding
from eijax.learning.packing import PackingConfig
from eijax.sampling.config import SamplerShapes
from eijax.sampling.placement import check_slots
from eijax.training.learner import num_micro_batches


def require_tpu() -> None:
  """Use TPU devices and nothing else.

  Raises:
    UsageError: there are none.
  """
  try:
    # Before anything else touches a backend, so that no other one is started beside it.
    jax.config.update('jax_platforms', 'tpu')
    devices = jax.devices()
  except RuntimeError as error:
    # Without jax's own advice, which --tpu has taken away.
    reason = str(error).strip().splitlines()[0].partition(' (set JAX_PLATFORMS')[0][:200]
    raise UsageError(f"--tpu was given, but jax finds no TPU here ({reason}); run on a TPU host with pip install '.[tpu]', "
                     'or drop --tpu to use the CPU or GPU') from None
  if devices[0].platform != 'tpu':
    raise UsageError(f'--tpu was given, but the devices are {devices[0].platform}; drop --tpu to use them')


def check_fits(config: RunConfig, mesh: Mesh) -> None:
  """Refuse batches that the devices of the mesh cannot share evenly, before anything is computed.

  Raises:
    UsageError: names the flag, the rule and values that fit.
  """
  hosts.check_processes(mesh)
  check_slots(share_of_slots(config.sampler, mesh), hosts.local_mesh(mesh))
  sharding.check_rows(config.packing.rows_per_minibatch, mesh, num_micro_batches(config, mesh))
  for length in config.packing.row_lengths + (config.warmup.packing.row_lengths if config.warmup else ()):
    sharding.check_row_length(length, mesh)
  if config.warmup is not None:
    sharding.check_rows(config.warmup.packing.rows_per_minibatch, mesh, 1, 'warmup_rows')
  if jax.process_count() > config.episodes.scenarios_per_step:
    raise UsageError(f'scenarios_per_step={config.episodes.scenarios_per_step} must be at least the number of processes '
                     f'({jax.process_count()}): the talks on one scenario stay together')
  if jax.process_count() > 1 and config.advantages.group_by != 'scenario':
    raise UsageError(f'algorithm={config.algorithm!r} compares talks on different scenarios, which {jax.process_count()} processes hold '
                     'apart; use one process, or an algorithm that groups by scenario')


def share_of_rows(packing: PackingConfig) -> PackingConfig:
  """What each process packs: its part of the rows of a mini-batch."""
  return dataclasses.replace(packing, rows_per_minibatch=packing.rows_per_minibatch // jax.process_count())


def share_of_slots(shapes: SamplerShapes, mesh: Mesh) -> SamplerShapes:
  """What each process samples at once: its part of the slots, rounded up to what its devices share evenly."""
  if jax.process_count() == 1:
    return shapes
  shards = sharding.num_data_shards(hosts.local_mesh(mesh))
  slots = -(-shapes.num_slots // jax.process_count())
  return dataclasses.replace(shapes, num_slots=-(-slots // shards) * shards)


def device_memory() -> dict[str, float]:
  """Memory of the fullest device of this process, in MiB: in use, at its peak, and all there is. Empty where the backend does not tell."""
  stats = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
  names = (('device_memory_mib', 'bytes_in_use'), ('device_peak_memory_mib', 'peak_bytes_in_use'),
           ('device_memory_limit_mib', 'bytes_limit'))
  return {name: max(one[key] for one in stats) / 2**20 for name, key in names if stats and all(key in one for one in stats)}


def peak_memory_mib() -> float:
  """Largest resident memory of this process so far, in MiB."""
  import resource  # pylint: disable=import-outside-toplevel

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
