"""What eijax.plan says of real slices: compiled by libtpu, held against bounds. `make plan-check`; needs no TPU.

BUILD.md has the figures of more slices; these are the ones whose bounds are tight.
"""

import json
import subprocess
import sys

import pytest

GIB = 2**30
# Memory, not time, is checked: these hold on any machine, under any load.
TRAIN = ['--programs=train_step', '--num_micro_batches=1']


def plan(*arguments: str) -> dict:
  done = subprocess.run([sys.executable, '-m', 'eijax.plan', '--json', *arguments], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


def check(step: dict) -> None:
  """What holds for every program."""
  assert step['fits'] and step['hbm_bytes'] <= 0.9 * step['hbm_limit_bytes']
  assert not step['unknown_loops']
  assert step['seconds_estimate'] == max(step['seconds'].values()) > 0


def test_8b_at_128_rows_of_2048_on_16_v5p():
  result = plan('--preset=qwen3_8b', '--topology=v5p:2x2x4', '--row_lengths=2048', '--spans=2048', '--rows_per_minibatch=128', *TRAIN)
  step = result['train_step']
  check(step)
  assert (result['num_devices'], result['fits']) == (16, True)
  assert step['temporaries_bytes'] <= 10.5 * GIB and step['hbm_bytes'] <= 16.0 * GIB
  assert step['compile_cpu_seconds'] < 300
  # Each chip has a sixteenth of the weights. In bfloat16, it takes in the rest of each layer two or three times, and a gradient once in
  # bfloat16 or float32. The compiler does most of it in steps beside the products, which are permutes and no gathers.
  layers = 36 * 4096 * (128 * 80 + 3 * 12288) * 2 * 15 / 16
  assert 3 * layers <= sum(step['communication_bytes'].values()) <= 6.5 * layers
  # 8 FLOPs for each weight and token, and the attention: 6.6e12 a sequence and pass.
  assert step['flops'] == pytest.approx(8 * 7.57e9 * 2**18 / 16, rel=0.15)


def test_8b_at_64_rows_of_8192_on_32_v5e():
  step = plan('--preset=qwen3_8b', '--topology=v5e:4x8', '--row_lengths=8192', '--spans=8192', '--rows_per_minibatch=64', *TRAIN)['train_step']
  check(step)
  assert step['hbm_bytes'] <= 13.0 * GIB and step['compile_cpu_seconds'] < 300


def test_decoding_holds_the_cache_once():
  # Eight of the 36 layers: the cache is 2.4 GiB a chip, what comes on top of it is tables and one layer brought together.
  result = plan('--preset=qwen3_8b', '--num_layers=8', '--topology=v6e:4x4', '--programs=decode_step')['decode_step']
  check(result)
  assert result['temporaries_bytes'] < 1.6 * GIB < 2.3 * GIB < result['parts']['cache']


def test_a_slice_of_8_by_8_chips_is_also_one_of_32_by_2():
  result = plan('--preset=qwen3_0_6b', '--num_layers=2', '--topology=v6e:8x8', '--mesh=fsdp=32,sequence=2', '--row_lengths=2048',
                '--spans=2048', '--programs=train_step')
  check(result['train_step'])


def test_programs_of_a_small_policy_on_a_mesh_with_every_axis():
  # Four layers: what is asked is whether every kernel and axis compiles, and a token is sampled.
  result = plan('--preset=qwen3_0_6b', '--num_layers=4', '--topology=v6e:2x4', '--mesh=fsdp=2,sequence=2,tensor=2', '--row_lengths=1024',
                '--spans=1024', '--max_new_tokens=256', '--num_slots=16', '--rows_per_minibatch=4', '--chunks=128',
                '--gradient_dtype=float32', '--remat=attention', '--programs=train_step,decode_step,prefill')
  assert result['fits'] and result['mesh'] == {'data': 1, 'fsdp': 2, 'sequence': 2, 'tensor': 2}
  for name in ('train_step', 'decode_step', 'prefill'):
    assert result[name]['fits'] and result[name]['hbm_bytes'] > result[name]['parts']['weights']
  assert result['decode_step']['parts']['cache'] == 4 * 16 * 8 * 1024 * 128 * 2 * 2 // 8  # Slots over fsdp and sequence, heads over tensor.
