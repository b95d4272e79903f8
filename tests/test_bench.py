"""eijax.bench: one JSON line of what was timed."""

import json
import os
import pathlib
import subprocess
import sys

from absl import flags
import pytest

from eijax.bench import generate, rollout, train_step
from eijax.errors import EijaxError, UsageError

ROOT = pathlib.Path(__file__).parent.parent
SMALL = ['--num_layers=2', '--hidden=16', '--num_heads=2', '--num_kv_heads=1', '--head_dim=8', '--mlp=32', '--vocab=50', '--batch=8', '--reps=2']


def run(*arguments):
  # One device, not the eight of the other tests.
  return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
                        env=os.environ | {'XLA_FLAGS': '', 'PYTHONPATH': str(ROOT)})


def parsed(module, arguments):
  values = flags.FlagValues()
  module.define_flags(values)
  return values, values(['bench', *arguments])[1:]


@pytest.fixture(name='bench')
def bench_fixture(capsys):
  def bench(module, *arguments):
    module.run(*parsed(module, arguments))
    return json.loads(capsys.readouterr().out)

  return bench


def test_updates_count_the_tokens_of_all_rows(bench):
  line = bench(train_step, *SMALL, '--batch=16', '--seq_len=24', '--prompt_len=10', '--num_micro_batches=2')
  assert line['tokens_per_s'] == pytest.approx(16 * 24 / line['seconds'], rel=1e-3)
  # Of 24 positions, the last 15 predict a token after the prompt of 10.
  assert line['scored_tokens'] == 16 * 15
  assert line['config']['num_params'] == 2 * 50 * 16 + 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32 + 2 * 16 + 2 * 8) + 16
  assert line['seconds'] <= line['first_call_seconds'] and line['peak_mib'] > 50


def test_responses_are_as_long_as_asked(bench):
  line = bench(generate, *SMALL, '--prompt_len=12', '--new_tokens=7', '--seq_len=32')
  assert line['sampled'] == 8 * 7 and line['tokens_per_s'] == pytest.approx(8 * 7 / line['seconds'], rel=1e-3)


def test_talks_are_held_whole(bench):
  line = bench(rollout, *SMALL[:-3], '--vocab=1200', '--batch=8', '--reps=2', '--new_tokens=5', '--max_rounds=2', '--seq_len=1024',
               '--prompt_len=512', '--simulator_latency_secs=0.1')
  assert line['episodes'] == 8 and line['failed_episodes'] == 0 and 8 <= line['rounds'] <= 16
  assert line['episodes_per_s'] == pytest.approx(8 / line['seconds'], rel=1e-2)
  sampled = line['tokens_per_s'] * line['seconds']
  assert line['rounds'] <= sampled <= 5 * line['rounds'] + 0.1
  # The simulator's delays are time in which nothing is sampled.
  assert 0 < line['device_busy_fraction'] < 1 - 0.05 / line['seconds']


def test_a_talk_that_outgrows_its_cache_counts_as_failed():
  with pytest.raises(EijaxError, match='all 8 talks failed, the first with .* a prompt has at most 59'):
    rollout.run(*parsed(rollout, [*SMALL[:-3], '--vocab=1200', '--batch=8', '--reps=1', '--new_tokens=5', '--seq_len=64', '--prompt_len=64']))


def test_the_command_prints_one_line():
  done = run('-m', 'eijax.bench', 'ceilings', '--matrix=128', '--array_mib=1', '--reps=1')
  assert done.returncode == 0, done.stderr
  line = json.loads(done.stdout)
  assert line['bench'] == 'ceilings' and line['flops_per_s'] > 1e6 and line['bytes_per_s'] > 1e6


@pytest.mark.parametrize('module, arguments, message', [
    (train_step, ['--seq_len=10', '--prompt_len=10'], 'prompt_len=10 must be below seq_len=10'),
    (generate, ['--seq_len=100'], 'seq_len=100 must be at least prompt_len [+] new_tokens = 256'),
    (rollout, ['--new_tokens=64', '--seq_len=64'], 'seq_len=64 must be above new_tokens=64'),
    (train_step, ['fast'], "argument 'fast' is not known"),
    (train_step, ['--num_heads=3'], 'num_heads=3'),
    (train_step, ['--batch=4', '--mesh=fsdp=8'], 'batch=4 must be divisible by .* the data shards .8.; use 8'),  # There are eight devices here.
])
def test_bad_shapes_are_usage_errors(module, arguments, message):
  with pytest.raises(UsageError, match=message):
    module.run(*parsed(module, arguments))


@pytest.mark.slow
def test_gpu_ceilings_skips_or_measures():
  if 'gpu' not in run('-c', 'import jax; print(jax.default_backend())').stdout:
    assert run('experiments/gpu_ceilings.py').stdout.startswith('skipped: no NVIDIA GPU, jax runs on cpu')
  done = run('experiments/gpu_ceilings.py', '--any_device', '--models=tiny', '--reps=2')
  row = done.stdout.splitlines()[-1].split('|')
  assert done.returncode == 0 and row[1].strip() == 'tiny' and row[5].strip() == '4 x 64', done.stderr
