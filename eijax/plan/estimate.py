"""From compiled programs to a verdict: memory by part, the bound, seconds.

A figure is either the compiler's (memory, communication) or a formula's (FLOPs, traffic of the HBM); `ASSUMPTIONS`
says what they leave out.
"""

import dataclasses
import math
from typing import Any

from jax.sharding import Mesh

from eijax.config import RunConfig
from eijax.plan import flops as flops_lib, programs
from eijax.plan.chips import Chip
from eijax.policy import lora
from eijax.sampling.decoding import LOOP_NAME
from eijax.training.learner import make_learner, num_micro_batches

# The compiler's own figure is exact, but a run holds more than one program: metrics, batches under way, fragments.
USABLE = 0.9

ASSUMPTIONS = (
    'memory: of the compiler (memory_analysis), per chip; above 90 % of the limit counts as not fitting',
    'FLOPs: by formula, every row one segment and every token scored, the most that a step can hold',
    'communication: bytes that a chip receives by ring algorithms, from the compiled program with its loops run to the end',
    'seconds: the longest of compute, HBM and interconnect at the peaks of the chip, perfectly overlapped: a floor, not a forecast',
    'interconnect: all links of a chip busy in both directions; a slice without wrap-around links, or several slices, is slower',
    'sampling: by one process that drives all chips; several hosts sample each on their own chips, with whole weights on each host',
    'HBM traffic: by formula, state and weights once a pass, layer inputs written and read once; a floor',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """Of one program and chip. hbm_bytes: peak, with what else of the run stays in memory. parts: name -> bytes, by which the
  total is made up. flops, model_flops: see flops.py, per chip. seconds: by resource; bound: the longest of them.
  tokens: that all chips together process in a step."""

  fits: bool
  hbm_bytes: int
  hbm_limit_bytes: int
  arguments_bytes: int | None
  temporaries_bytes: int | None
  host_bytes: int | None
  parts: dict[str, int]
  flops: float
  model_flops: float
  communication_bytes: dict[str, float]
  unknown_loops: tuple[str, ...]
  seconds: dict[str, float]
  bound: str
  seconds_estimate: float
  tokens: int
  compile_seconds: float
  compile_cpu_seconds: float


def _finish(chip: Chip, compiled: programs.Compiled, *, resident: int, parts: dict[str, int], flops: flops_lib.Flops, traffic: float,
            tokens: int, num_chips: int) -> Estimate:
  received = compiled.communication.received if compiled.communication else {}
  seconds = {'compute': flops.hardware / num_chips / chip.flops, 'HBM': traffic / chip.hbm_bandwidth,
             'interconnect': sum(received.values()) / chip.ici_bandwidth}
  bound = max(seconds, key=seconds.get)
  peak = compiled.peak + resident
  return Estimate(
      fits=compiled.arguments is not None and peak <= USABLE * chip.hbm_bytes, hbm_bytes=peak, hbm_limit_bytes=chip.hbm_bytes,
      arguments_bytes=compiled.arguments, temporaries_bytes=compiled.temporaries, host_bytes=compiled.host_temporaries,
      parts=parts, flops=flops.hardware / num_chips, model_flops=flops.model / num_chips, communication_bytes=received,
      unknown_loops=compiled.communication.unknown_loops if compiled.communication else (), seconds=seconds, bound=bound,
      seconds_estimate=seconds[bound], tokens=tokens, compile_seconds=compiled.compile_seconds,
      compile_cpu_seconds=compiled.cpu_seconds)


def _rest(compiled: programs.Compiled, known: dict[str, int]) -> dict[str, int]:
  """The known parts, and what of the peak they do not explain."""
  return known | {'other temporaries': max(0, compiled.peak - sum(known.values()))}


def layer_inputs(config: RunConfig, mesh: Mesh, row_length: int) -> int:
  """Bytes of what is kept of each layer for the backward pass, at least: its input."""
  tokens = config.packing.rows_per_minibatch * row_length // num_micro_batches(config, mesh)
  width = 2 if config.policy.compute_dtype == 'bfloat16' else 4
  return config.policy.num_layers * tokens * config.policy.hidden_dim * width // mesh.size


def train_step(config: RunConfig, mesh: Mesh, chip: Chip) -> Estimate:
  """Compile and judge one update of the longest declared row length."""
  length, rows, policy = config.packing.row_lengths[-1], config.packing.rows_per_minibatch, config.policy
  lowered, state = programs.lower_train(config, mesh, length)
  compiled = programs.compile_program(lowered, programs.train_trips(config, mesh, length))
  params, moments = programs.tree_bytes(state.params), programs.tree_bytes(state.opt_state)
  gradients = programs.tree_bytes(lora.split(state.params)[0])
  inputs = layer_inputs(config, mesh, length)
  known = {'weights': params, 'moments': moments, 'gradients': gradients}
  if policy.remat != 'offload':
    known['layer inputs'] = inputs
  parts = num_micro_batches(config, mesh)
  # Weights of the passes in compute_dtype, written when gathered and read again; what is trained read and written once.
  width = 2 if policy.compute_dtype == 'bfloat16' else 4
  gathered = width * policy.num_params / mesh.shape['tensor']
  traffic = 2 * (gradients + moments) + 2 * gradients * parts + 3 * 2 * gathered * parts + 2 * inputs * parts
  return _finish(
      chip, compiled, resident=0, parts=_rest(compiled, known), traffic=traffic, tokens=rows * length, num_chips=mesh.size,
      flops=flops_lib.train_step(policy, rows=rows, length=length, chunked=bool(config.learner.chunk_length)))


def decode_step(config: RunConfig, mesh: Mesh, chip: Chip) -> Estimate:
  """Compile and judge the decode loop over the longest span; figures are those of one token in each slot."""
  lowered, cache = programs.lower_decode(config, mesh)
  compiled = programs.compile_program(lowered, {LOOP_NAME: 1})
  return _sampling(config, mesh, chip, compiled, cache, tokens=config.sampler.num_slots)


def prefill(config: RunConfig, mesh: Mesh, chip: Chip) -> Estimate:
  """Compile and judge one prefill call of the longest chunk."""
  lowered, cache = programs.lower_prefill(config, mesh)
  compiled = programs.compile_program(lowered, {})
  return _sampling(config, mesh, chip, compiled, cache, tokens=config.sampler.num_slots * config.sampler.chunks[-1])


def _sampling(config: RunConfig, mesh: Mesh, chip: Chip, compiled: programs.Compiled, cache: Any, *, tokens: int) -> Estimate:
  policy, span, slots = config.policy, config.sampler.max_tokens, config.sampler.num_slots
  state = make_learner(config, mesh).abstract
  params, moments, cells = (programs.tree_bytes(tree) for tree in (state.params, state.opt_state, cache))
  one = flops_lib.decode_step(policy, slots=slots, span=span)
  per_slot = tokens / slots
  flops = flops_lib.Flops(model=one.model * per_slot, hardware=one.hardware * per_slot)
  return _finish(
      chip, compiled, resident=moments, tokens=tokens, num_chips=mesh.size, flops=flops,
      parts=_rest(compiled, {'weights': params, 'cache': cells}) | {'moments (idle)': moments}, traffic=float(params + cells))


def suggestions(config: RunConfig, mesh: Mesh, chip: Chip, train: Estimate) -> list[str]:
  """What to try where an update does not fit, the cheapest first."""
  if train.fits:
    return []
  found, policy, parts = [], config.policy, num_micro_batches(config, mesh)
  state = sum(train.parts.get(name, 0) for name in ('weights', 'moments', 'gradients'))
  rows = config.packing.rows_per_minibatch // (parts * math.prod(mesh.shape[axis] for axis in ('data', 'fsdp')))
  if state > USABLE * chip.hbm_bytes:
    chips = math.ceil(state * mesh.size / (0.6 * chip.hbm_bytes)) if mesh.shape['data'] == 1 else mesh.size
    found.append('--mesh without data: it keeps whole copies of the state' if mesh.shape['data'] > 1 else
                 f'a larger slice: weights, moments and gradients alone take {state / 2**30:.1f} GiB a chip; {chips} chips or more')
  if policy.remat not in ('full', 'offload'):
    found.append('--remat=full: keep only the input of each layer')
  if rows > 1:
    found.append(f'--num_micro_batches={parts * rows}: {rows} rows at a time become one')
  if policy.remat != 'offload':
    found.append(f'--remat=offload: {train.parts.get("layer inputs", 0) / 2**30:.1f} GiB of layer inputs go to the host')
  if mesh.shape['sequence'] == mesh.shape['tensor'] == 1 and mesh.shape['fsdp'] > 1:
    found.append(f'--mesh=fsdp={mesh.shape["fsdp"] // 2},tensor=2: half of the heads, mlp and positions a chip')
  return found
