"""The parts of eijax.plan that need no TPU compiler; tests/ahead_of_time holds those that do."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest

from eijax import presets
from eijax.errors import UsageError
from eijax.learning import sharding
from eijax.plan import chips, estimate, flops, hlo, programs, sweep, tables, topology
from eijax.policy.config import LoraConfig, PolicyConfig
from eijax.training import learner as learner_lib

SMALL = PolicyConfig(vocab_size=50, num_layers=3, hidden_dim=8, num_heads=4, num_kv_heads=2, head_dim=6, mlp_dim=10)


def test_flops_equal_a_count_by_hand():
  # Per layer: queries 8*24, keys and values 2*8*12, out 24*8, mlp 3*8*10 = 816; the table 50*8 = 400.
  # A row of 4 tokens has 10 pairs; each costs 2 * 24 for a score and as much for its value.
  whole = flops.train_step(SMALL, rows=2, length=4, chunked=False)
  assert whole.model == 6 * 8 * (3 * 816 + 400) + 3 * (2 * 2 * 24) * 2 * 3 * 10
  # Nothing is computed again but the scores of flash attention, in its backward pass.
  assert whole.hardware == whole.model + 2 * 24 * 2 * 3 * 10
  again = flops.train_step(dataclasses.replace(SMALL, remat='full'), rows=2, length=4, chunked=True)
  assert again.hardware - whole.hardware == 2 * 8 * (3 * 816 + 400) + 2 * (2 * 24) * 2 * 3 * 10
  # An adapter: the weights have no gradient, its own 3 * 2 * (2 * (8 + 24) + 2 * (8 + 12) + 3 * (8 + 10)) have.
  adapted = flops.train_step(dataclasses.replace(SMALL, lora=LoraConfig(rank=2)), rows=2, length=4, chunked=False)
  assert whole.model - adapted.model == 2 * 8 * (3 * 816 + 400) - 6 * 8 * 3 * 2 * 158
  decode = flops.decode_step(SMALL, slots=5, span=7)
  assert decode.hardware == 5 * (2 * (3 * 816 + 400) + 4 * 24 * 3 * 7)


def test_local_layers_see_their_window_only():
  local = dataclasses.replace(SMALL, local_layers=(0, 1), window=2)
  saved = flops.decode_step(SMALL, slots=1, span=7).model - flops.decode_step(local, slots=1, span=7).model
  assert saved == 4 * 24 * 2 * 5
  # Of 4 tokens: 10 pairs, in the window of two 7.
  pairs = flops.train_step(SMALL, rows=1, length=4, chunked=False).model - flops.train_step(local, rows=1, length=4, chunked=False).model
  assert pairs == 3 * (4 * 24) * 2 * (10 - 7)


HLO = """
HloModule jit_step

%body.1 (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %ag = bf16[64,16]{1,0:T(8,128)(2,1)} all-gather(%x), replica_groups=[2,4]<=[8], dimensions={0}
  %rs = f32[2,16]{1,0} reduce-scatter(%y), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add
}

%condition.1 (p: (s32[], f32[8,16])) -> pred[] {
  %bound = s32[]{:T(128)} constant(36)
  ROOT %lt = pred[] compare(%i, %bound), direction=LT
}

%chunk (p: (s32[])) -> (s32[]) {
  %a2a = f32[4,8]{1,0} all-to-all(%z), replica_groups={{0,1}}, dimensions={0}
}

%dynamic (p: (s32[])) -> pred[] {
  ROOT %lt2 = pred[] compare(%i, %n), direction=LT
}

%fused (p: f32[16]) -> f32[16] {
  %ar = (f32[16]{0}, f32[16]{0}) all-reduce-start(%w), replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
}

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %s = f32[] add(%a, %b)
}

ENTRY %main (p0: f32[16]) -> f32[16] {
  %w1 = (s32[], f32[8,16]) while(%t), condition=%condition.1, body=%body.1
  %w2 = (s32[]) while(%t), condition=%dynamic, body=%chunk, metadata={op_name="jit(update)/vocabulary_chunks/while"}
  %w3 = (s32[]) while(%t), condition=%dynamic, body=%chunk, metadata={op_name="jit(update)/other/while"}
  %f = f32[16] fusion(%q), kind=kLoop, calls=%fused
  %ag2 = f32[8,4]{1,0} all-gather(%f), replica_groups=mesh['data'=1,'fsdp'=4,'sequence'=2] {'fsdp','sequence'}, dimensions={0}
  %cp = f32[16]{0} collective-permute(%f), source_target_pairs={{0,1}}
}
"""


def test_communication_counts_loops_as_often_as_they_run():
  found = hlo.communication(HLO, {'vocabulary_chunks': 5})
  assert found.received == {
      'all-gather': 36 * 64 * 16 * 2 * 3 / 4 + 8 * 4 * 4 * 7 / 8,  # 3 of 4 parts come from others.
      'reduce-scatter': 36 * 2 * 16 * 4 * 3,  # 4 parts come together, one of them one's own.
      'all-reduce': 2 * 16 * 4 * 7 / 8,
      'all-to-all': (5 + 1) * 4 * 8 * 4 / 2,
      'collective-permute': 64,
  }
  assert found.unknown_loops == ('chunk',)


def test_communication_of_a_real_program():
  """Of XLA's own text: a sum over eight devices in a loop of three rounds."""
  mesh = sharding.make_mesh('fsdp=8')
  spec = jax.sharding.PartitionSpec('fsdp')

  def local(x):
    return jax.lax.fori_loop(0, 3, lambda _, y: jax.lax.psum(y, 'fsdp') / 8, x)

  run = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
  found = hlo.communication(run.lower(jax.ShapeDtypeStruct((8, 100), np.float32)).compile().as_text(), {})
  assert found.received['all-reduce'] == 3 * 2 * 400 * 7 / 8 and not found.unknown_loops


@pytest.mark.parametrize('name', ['v5p', 'v7:2x2', 'v5e:4x', 'v5e 4x8', ''])
def test_unknown_topologies_are_refused(name):
  with pytest.raises(UsageError, match='must be CHIP:SHAPE with CHIP one of v4, v5e, v5p, v6e'):
    topology.parse(name)


def test_topologies_and_chips():
  assert topology.parse('v5p:2x2x4')[1] == 16 and topology.parse('v5e:16x16') == (chips.CHIPS['v5e'], 256)
  for chip in chips.CHIPS.values():
    assert chip.source.startswith('https://') and chip.flops > chip.hbm_bandwidth > chip.ici_bandwidth


def small_run(**changes):
  config = presets.demo()
  return dataclasses.replace(config, warmup=None, learner=dataclasses.replace(config.learner, num_micro_batches=1), **changes)


def test_an_update_is_planned_like_it_is_run():
  """On the CPU's own devices: the same functions, so that the figures can be held against real arrays."""
  config, mesh = small_run(), sharding.make_mesh('fsdp=8')
  step = estimate.train_step(config, mesh, chips.CHIPS['v5e'])
  learner = learner_lib.make_learner(config, mesh)
  assert step.parts['weights'] == pytest.approx(4 * config.policy.num_params / 8, rel=0.02)  # Norms are whole everywhere.
  assert step.parts['moments'] == pytest.approx(2 * step.parts['weights'], rel=0.001)
  batch = programs.tree_bytes(learner_lib.batch_shapes(config, mesh, config.packing.row_lengths[-1]))
  assert step.arguments_bytes == pytest.approx(programs.tree_bytes(learner.abstract) + batch, rel=0.01)
  assert step.fits and not step.unknown_loops and estimate.suggestions(config, mesh, chips.CHIPS['v5e'], step) == []
  # Weights are gathered at least twice, and their gradients scattered.
  weights = 4 * config.policy.num_layers * 128 * (128 * 3 + 3 * 384) * 7 / 8
  assert sum(step.communication_bytes.values()) > 3 * weights
  assert step.bound == max(step.seconds, key=step.seconds.get)
  text = '\n'.join(tables.program('update', step))
  assert 'fits' in text and 'layer inputs' in text and f'bound by {step.bound}' in text


def test_what_does_not_fit_is_told_what_to_try():
  config, mesh = presets.get('qwen3_14b'), sharding.make_mesh('fsdp=8')
  step = dataclasses.replace(FITS, fits=False, parts={'weights': 16 * 2**30, 'moments': 32 * 2**30, 'gradients': 16 * 2**30})
  words = ' '.join(estimate.suggestions(config, mesh, chips.CHIPS['v6e'], step))
  assert 'a larger slice: weights, moments and gradients alone take 64.0 GiB a chip' in words
  assert '--remat=offload' in words and 'tensor=2' in words and '--num_micro_batches' not in words  # One row at a time already.


FITS = estimate.Estimate(
    fits=True, hbm_bytes=10, hbm_limit_bytes=100, arguments_bytes=1, temporaries_bytes=9, host_bytes=0, parts={}, flops=1.0,
    model_flops=1.0, communication_bytes={}, unknown_loops=(), seconds={'compute': 2.0}, bound='compute', seconds_estimate=2.0,
    tokens=1, compile_seconds=0.0, compile_cpu_seconds=0.0)


def test_a_sweep_ranks_what_fits_by_time_and_the_rest_by_what_it_lacks(monkeypatch):
  made = {
      ('fsdp=8', 'full'): FITS, ('fsdp=8', 'none'): dataclasses.replace(FITS, fits=False, hbm_bytes=500, seconds_estimate=1.0),
      ('fsdp=4,tensor=2', 'full'): dataclasses.replace(FITS, seconds_estimate=1.5),
      ('fsdp=4,tensor=2', 'none'): dataclasses.replace(FITS, fits=False, hbm_bytes=200),
  }

  def judged(config, mesh, chip):
    del mesh, chip
    if config.mesh == 'tensor=8':
      raise UsageError('too few heads')
    return made[config.mesh, config.policy.remat]

  monkeypatch.setattr(estimate, 'train_step', judged)
  seen = []
  trials = sweep.sweep(small_run(), jax.devices(), chips.CHIPS['v5e'], ['fsdp=8', 'fsdp=4,tensor=2', 'tensor=8'], ['none', 'full'],
                       seen.append)
  assert [(t.mesh, t.remat) for t in trials[:4]] == [
      ('fsdp=4,tensor=2', 'full'), ('fsdp=8', 'full'), ('fsdp=4,tensor=2', 'none'), ('fsdp=8', 'none')]
  assert len(seen) == 6 and trials[4].refused == 'too few heads'
  table = tables.ranking(trials)
  assert len(table) == 7 and 'refused: too few heads' in table[-1]


def test_default_meshes_suit_devices_and_rows():
  assert sweep.default_meshes(16, 128) == ['fsdp=16', 'fsdp=8,tensor=2', 'fsdp=4,tensor=4', 'fsdp=8,sequence=2', 'fsdp=4,sequence=4']
  assert all('fsdp=256' not in mesh for mesh in sweep.default_meshes(256, 128))


@pytest.mark.parametrize('arguments, message', [
    ([], '--topology= must be given'), (['--topology=v9:2x2'], "topology='v9:2x2' must be CHIP:SHAPE"),
    (['--topology=v5e:4x4', '--programs=loss'], '--programs=loss must be some of train_step, decode_step, prefill')])
def test_the_command_refuses_nonsense_in_one_line(arguments, message):
  done = subprocess.run([sys.executable, '-m', 'eijax.plan', *arguments], capture_output=True, text=True, check=False)
  assert done.returncode == 2 and message in done.stderr and done.stderr.count('\n') == 1


@pytest.mark.parametrize('message', [
    'RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 24.53G of 15.75G hbm.',
    'RESOURCE_EXHAUSTED: the total memory required for HLO temporaries (24.53G) exceeds available HBM (15.75G).'])
def test_a_program_that_the_compiler_gives_up_on_is_one_that_does_not_fit(message):
  class Refused:
    def compile(self):
      raise jax.errors.JaxRuntimeError(message)

  compiled = programs.compile_program(Refused(), {})
  assert compiled.arguments is None and compiled.peak == int(24.53 * 2**30)
