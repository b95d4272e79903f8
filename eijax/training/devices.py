"""The devices of a run."""

import jax
from jax.sharding import Mesh

from eijax.config import RunConfig
from eijax.errors import UsageError
from eijax.learning import sharding
from eijax.sampling.placement import check_slots


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
  check_slots(config.sampler, mesh)
  rows = config.packing.rows_per_minibatch
  sharding.check_rows(rows * jax.process_count(), mesh, config.learner.num_micro_batches)
  if config.warmup is not None:
    rows = config.warmup.packing.rows_per_minibatch
    sharding.check_rows(rows * jax.process_count(), mesh, 1, 'warmup_rows')


def device_memory() -> dict[str, float]:
  """Memory of the fullest device of this process, in MiB: in use, at its peak, and all there is. Empty where the backend does not tell."""
  stats = [stats for device in jax.local_devices() if (stats := device.memory_stats())]
  names = (('device_memory_mib', 'bytes_in_use'), ('device_peak_memory_mib', 'peak_bytes_in_use'), ('device_memory_limit_mib', 'bytes_limit'))
  return {name: max(one[key] for one in stats) / 2**20 for name, key in names if stats and all(key in one for one in stats)}


def peak_memory_mib() -> float:
  """Largest resident memory of this process so far, in MiB."""
  import resource  # pylint: disable=import-outside-toplevel

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
