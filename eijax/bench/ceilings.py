"""What the first device can do at most: bytes a second of its memory, FLOPs a second of its products.

Measured with the simplest programs there are, a sum of two large arrays and a product of two large matrices, so that what other
subcommands reach can be put in relation to it. A multiply-add counts as two.
"""

import json

from absl import flags
import jax
import jax.numpy as jnp

from eijax.bench import measure, shapes
from eijax.policy.config import DTYPES


def define_flags(values: flags.FlagValues) -> None:
  flags.DEFINE_enum('dtype', 'float32', DTYPES, 'Type of the matrices.', flag_values=values)
  flags.DEFINE_integer('matrix', 2048, 'Rows and columns of a matrix; 8192 suits a large GPU.', lower_bound=128, flag_values=values)
  flags.DEFINE_integer('array_mib', 256, 'MiB of an array; well beyond all caches.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('reps', 9, 'Timed calls; the fastest counts.', lower_bound=1, flag_values=values)


def memory_bandwidth(array_mib: int, reps: int) -> float:
  """Bytes a second: two arrays are read and one is written."""
  size = array_mib * 2**20 // 4
  add = jax.jit(lambda x, y: x + y)
  x, y = jnp.zeros(size, jnp.float32), jnp.ones(size, jnp.float32)
  timing = measure.timed(lambda: add(x, y).block_until_ready(), reps)
  return 3 * 4 * size / min(timing.wall)


def matrix_flops(n: int, dtype: str, reps: int) -> float:
  """FLOPs a second of a product of two matrices [n, n], added up in float32."""
  multiply = jax.jit(lambda x, y: jax.lax.dot(x, y, preferred_element_type=jnp.float32).astype(dtype))
  x, y = (jax.random.normal(jax.random.key(seed), (n, n), jnp.dtype(dtype)) for seed in (0, 1))
  timing = measure.timed(lambda: multiply(x, y).block_until_ready(), reps)
  return 2 * n**3 / min(timing.wall)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
  shapes.no_arguments(arguments)
  device = jax.devices()[0]
  print(json.dumps({
      'bench': 'ceilings', 'platform': device.platform, 'device': device.device_kind, 'dtype': values.dtype,
      'bytes_per_s': memory_bandwidth(values.array_mib, values.reps), 'flops_per_s': matrix_flops(values.matrix, values.dtype, values.reps),
      'jax': jax.__version__}), flush=True)
