"""Devices that are not there: a description of a TPU slice that the real compiler accepts."""

import glob
import importlib.util
import math
import os
import re

import jax

from eijax.errors import EijaxError, UsageError
from eijax.plan.chips import CHIPS, Chip

EXAMPLES = 'v5p:2x2x4, v5e:4x8, v6e:4x4, v4:2x2x4'


def parse(name: str) -> tuple[Chip, int]:
  """(chip, number of chips) of a topology such as v5p:2x2x4.

  Raises:
    UsageError: no such chip, or no such form.
  """
  match = re.fullmatch(r'(\w+):(\d+(?:x\d+)*)', name)
  if not match or match[1] not in CHIPS:
    raise UsageError(f'topology={name!r} must be CHIP:SHAPE with CHIP one of {", ".join(CHIPS)}, e.g. {EXAMPLES}')
  return CHIPS[match[1]], math.prod(map(int, match[2].split('x')))


def prepare() -> None:
  """Have this process compile only. Before jax is used for anything.

  Raises:
    UsageError: libtpu is not installed.
  """
  if importlib.util.find_spec('libtpu') is None:
    raise UsageError("eijax.plan needs the TPU compiler, libtpu, which is not installed; pip install 'eijax[plan]' (Linux, "
                     'x86-64; no TPU needed)')
  jax.config.update('jax_platforms', 'cpu')
  if not glob.glob('/dev/accel*') and not glob.glob('/dev/vfio/*'):
    # libtpu takes a lock so that two processes do not share a chip. Where there is none, several may compile at once.
    os.environ.setdefault('ALLOW_MULTIPLE_LIBTPU_LOAD', '1')
  # It would ask for the metadata of a cloud machine, for minutes, and then complain on stderr.
  for variable, value in (('TPU_SKIP_MDS_QUERY', '1'), ('TPU_ACCELERATOR_TYPE', 'v4-8'), ('TPU_WORKER_HOSTNAMES', 'localhost'),
                          ('TPU_MIN_LOG_LEVEL', '3'), ('TPU_STDERR_LOG_LEVEL', '3')):
    os.environ.setdefault(variable, value)


def describe(name: str) -> tuple[Chip, list]:
  """(chip, devices) of a topology; see `prepare`.

  Raises:
    UsageError: libtpu does not know it.
    EijaxError: another process holds libtpu.
  """
  from jax.experimental import topologies  # pylint: disable=import-outside-toplevel

  chip, num_chips = parse(name)
  # The two cores of a v4 chip as one device, as jax has them on such machines; the others are by themselves.
  options = {'chip_config_name': 'megacore'} if chip.name == 'v4' else {}
  try:
    devices = list(topologies.get_topology_desc(platform='tpu', topology_name=name, **options).devices)
  except Exception as error:  # pylint: disable=broad-except; jax raises what libtpu says, in several types.
    text = ' '.join(str(error).split())
    if 'lockfile' in text or 'in use' in text:
      raise EijaxError(f'libtpu is in use by another process of this machine ({text[:200]}); wait for it, or plan on a machine '
                       'without TPU') from None
    raise UsageError(f'topology={name!r} is not one that libtpu knows ({text[:200]}); try e.g. {EXAMPLES}') from None
  if len(devices) != num_chips:
    raise UsageError(f'topology={name!r} has {len(devices)} devices for {num_chips} chips; only chips that are one device each '
                     'are supported')
  return chip, devices
