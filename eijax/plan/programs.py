"""The programs of a run, lowered and compiled for described devices.

They are the functions that eijax.train calls, given shapes instead of arrays.
"""

import dataclasses
import math
import re
import time
from typing import Any

import jax
from jax.sharding import Mesh
import numpy as np

from eijax.config import RunConfig
from eijax.errors import EijaxError
from eijax.learning.step import MICRO_BATCH_LOOP
from eijax.learning.vocabulary import LOOP_NAME, chunk_size
from eijax.plan.chips import GIB
from eijax.plan.hlo import Communication, communication
from eijax.sampling.sampler import BatchSampler
from eijax.training import devices, learner as learner_lib

# Two wordings of one refusal, by where in the compiler it is found out.
_USED = re.compile(r'(?:Used |\()([\d.]+)([KMGT])(?: of [\d.]+[KMGT] hbm|\) exceeds available HBM)')
_UNITS = {'K': 2**10, 'M': 2**20, 'G': GIB, 'T': 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
  """What the compiler says of one program, per chip, in bytes and seconds.

  peak: most memory in use at a time, arguments included; temporaries are what it holds beside these. Of a program that did not compile for want of memory,
  what it asked for, and the other figures are None. communication: see hlo.py.
  """

  peak: int
  arguments: int | None
  temporaries: int | None
  host_temporaries: int | None
  communication: Communication | None
  compile_seconds: float
  cpu_seconds: float


def tree_bytes(tree: Any) -> int:
  """Bytes of one chip's part of a tree of ShapeDtypeStructs with shardings."""
  return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def compile_program(lowered: jax.stages.Lowered, trips: dict[str, int]) -> Compiled:
  """Compile, and read memory and communication.

  Raises:
    EijaxError: the compiler refused for another reason than memory.
  """
  wall, cpu = time.perf_counter(), time.process_time()
  spent = lambda: dict(compile_seconds=time.perf_counter() - wall, cpu_seconds=time.process_time() - cpu)
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    used = _USED.search(str(error))
    if not used:
      raise EijaxError(f'the TPU compiler refused the program: {" ".join(str(error).split())[:500]}; other --mesh, --remat or '
                       '--attention may suit it') from None
    return Compiled(peak=int(float(used[1]) * _UNITS[used[2]]), arguments=None, temporaries=None, host_temporaries=None,
                    communication=None, **spent())
  memory, seconds = compiled.memory_analysis(), spent()
  # Not temp_size_in_bytes: libtpu 0.0.42 and 0.0.50 count some donated outputs in it, 0.0.51 does not; all agree on the peak.
  temporaries = memory.peak_memory_in_bytes - memory.argument_size_in_bytes
  return Compiled(
      peak=memory.peak_memory_in_bytes, arguments=memory.argument_size_in_bytes, temporaries=temporaries,
      host_temporaries=memory.host_temp_size_in_bytes, communication=communication(compiled.as_text(), trips), **seconds)


def train_trips(config: RunConfig, mesh: Mesh, row_length: int) -> dict[str, int]:
  """How often the loops of the update run at most: their bounds are data."""
  parts = learner_lib.num_micro_batches(config, mesh)
  tokens = config.packing.rows_per_minibatch * row_length // parts
  per_device = tokens // (mesh.size // mesh.shape['tensor'])
  size = chunk_size(config.learner.chunk_length, per_device, mesh.shape['fsdp'] * mesh.shape['sequence'])
  return {MICRO_BATCH_LOOP: parts, LOOP_NAME: -(-per_device // size)}


def lower_train(config: RunConfig, mesh: Mesh, row_length: int) -> tuple[jax.stages.Lowered, Any]:
  """(the update of a mini-batch, the abstract state).

  Raises:
    UsageError: the mesh does not suit the policy or the batch.
  """
  devices.check_fits(config, mesh)
  learner = learner_lib.make_learner(config, mesh)
  batch = learner_lib.batch_shapes(config, mesh, row_length)
  return learner.update.lower(learner.abstract, batch, jax.ShapeDtypeStruct((), np.float32)), learner.abstract


def _sampler(config: RunConfig, mesh: Mesh) -> BatchSampler:
  decoder = learner_lib.make_learner(config, mesh).decoder
  # Which ids may be sampled is data.
  return BatchSampler(decoder, mesh, config.sampler, config.sampling, stop_ids=[0],
                      sampleable_ids=range(config.policy.vocab_size))


def lower_decode(config: RunConfig, mesh: Mesh) -> tuple[jax.stages.Lowered, Any]:
  """(the decode loop over the longest span, the abstract cache)."""
  params = learner_lib.make_learner(config, mesh).abstract.params
  return _sampler(config, mesh).lower_decode(params, config.sampler.max_tokens)


def lower_prefill(config: RunConfig, mesh: Mesh) -> tuple[jax.stages.Lowered, Any]:
  """(the longest prefill chunk over the longest span, the abstract cache)."""
  params = learner_lib.make_learner(config, mesh).abstract.params
  return _sampler(config, mesh).lower_prefill(params, config.sampler.max_tokens, config.sampler.chunks[-1])
