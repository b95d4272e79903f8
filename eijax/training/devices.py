"""The devices of a run."""

import jax

from eijax.errors import UsageError


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
    reason = str(error).strip().splitlines()[0][:200]
    raise UsageError(f"--tpu was given, but jax finds no TPU here ({reason}); run on a TPU host with pip install '.[tpu]', "
                     'or drop --tpu to use the CPU or GPU') from None
  if devices[0].platform != 'tpu':
    raise UsageError(f'--tpu was given, but the devices are {devices[0].platform}; drop --tpu to use them')


def peak_memory_mib() -> float:
  """Largest resident memory of this process so far, in MiB."""
  import resource  # pylint: disable=import-outside-toplevel

  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
