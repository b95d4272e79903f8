"""Whole runs of several processes: their result is that of one."""

import json

import jax
import numpy as np
import pytest

from eijax import train
from eijax.checkpoints import layout
from eijax.checkpoints.folder import restore_params
from eijax.errors import PreemptedError
from eijax.sft import run as sft_run
from eijax.training import policy_source
from forked import environment, every_program_is_kept, free_port, run_program
from peer_run import NUM_STEPS, peer_config
from saved_run import one_device_mesh, write_run
from tiny_sft import build, talks, tiny_flags, write_chats

# jax's own client of a CPU gives up after 30 seconds in a collective; a machine that is busy may take that long to start one.
TIMEOUT_SECS = 300


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """A saved policy, and what one process with eight devices makes of it."""
  folder = tmp_path_factory.mktemp('alone')
  policy, config, _ = write_run(folder)
  with pytest.MonkeyPatch.context() as patch, every_program_is_kept():
    patch.setattr(train, 'write_report', lambda path: path / 'report.html')
    train.train(peer_config(str(policy), config), str(folder / 'one'), tpu=False, resume=True)
  return policy, folder / 'one'


def run_together(policy, workdir, *moments):
  return run_program('peer_run.py', str(policy), str(workdir), f'127.0.0.1:{free_port()}', *moments,
                     env=environment(num_devices=4), timeout_secs=TIMEOUT_SECS)


def assert_weights_close(one, several, config):
  """Of the last checkpoints: float32 sums in another order, of which Adam makes a share of the learning rate."""
  abstract = policy_source.abstract_params(config, one_device_mesh())
  restored = (jax.tree.leaves(restore_params(folder / 'checkpoints', abstract)) for folder in (one, several))
  for expected, actual in zip(*restored, strict=True):
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()


def assert_like_one(one, several, num_processes):
  expected, actual = lines(one / 'metrics.jsonl'), lines(several / 'metrics.jsonl')
  assert [row['step'] for row in actual] == list(range(NUM_STEPS))
  for mine, theirs in zip(actual, expected):
    for name in ('loss', 'policy_loss', 'entropy', 'reward', 'advantage_std'):
      assert mine[name] == pytest.approx(theirs[name], abs=1e-5), name
    # Sums of float32 in another order.
    for name in ('grad_norm', 'update_norm', 'param_norm'):
      assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name
    for name in ('num_tokens', 'num_updates', 'episodes', 'simulator_requests', 'rounds_mean'):
      assert mine[name] == theirs[name], name
  for name in (*(f'episodes/step_{step:06d}.jsonl' for step in range(NUM_STEPS)), 'eval/step_000000/results.jsonl'):
    assert (several / name).read_text() == (one / name).read_text(), name
  assert layout.complete_steps(several / 'checkpoints') == [1, 2]
  assert_weights_close(one, several, policy_source.read_shapes(one / 'policy'))
  config = json.loads((several / 'config.json').read_text())
  assert config['sampler']['num_slots'] == 8, 'settings do not depend on the processes'
  assert len(list((several / 'tensorboard').iterdir())) <= 2, f'of {num_processes} processes one writes'


def test_two_processes_stopped_at_one_of_them_equal_one_process(alone, tmp_path):
  policy, one = alone
  results = run_together(policy, tmp_path / 'two', 'none', 'sigterm')
  for status, _, err in results:
    assert status == PreemptedError.exit_code and 'error: stopped by SIGTERM; saved at step 0: the same command goes on' in err, results
  for status, _, err in (results := run_together(policy, tmp_path / 'two', 'none', 'none')):
    assert status == 0, results
  assert 'resumed at step 0' in results[0][1] and not results[1][1].replace('\n', '').strip().startswith('resumed')
  assert_like_one(one, tmp_path / 'two', 2)


def test_four_processes_equal_one(alone, tmp_path):
  policy, one = alone
  for status, _, err in (results := run_together(policy, tmp_path / 'four', 'none', 'none', 'none', 'none')):
    assert status == 0, results
  assert_like_one(one, tmp_path / 'four', 4)


@pytest.mark.slow
def test_two_processes_fine_tune_an_adapter_like_one(alone, tmp_path):
  policy, _ = alone
  arguments = tiny_flags(policy, write_chats(tmp_path / 'chats.jsonl', talks(40)), '--row_lengths=80', '--rows_per_minibatch=8',
                         '--max_steps=5', '--lora_rank=2', '--compute_dtype=float32')
  config = build(*arguments)
  with pytest.MonkeyPatch.context() as patch, every_program_is_kept():
    patch.setattr(sft_run, 'write_report', lambda path: path / 'report.html')
    sft_run.fine_tune(config, str(tmp_path / 'one'), tpu=False, resume=True)

  def together(*moments):
    return run_program('tiny_sft.py', str(tmp_path / 'two'), f'--together=127.0.0.1:{free_port()}', *moments, '--', *arguments,
                       env=environment(num_devices=4), timeout_secs=TIMEOUT_SECS)

  for status, _, err in (results := together('none', 'sigterm')):
    assert status == PreemptedError.exit_code and 'error: stopped by SIGTERM; saved at step 2: the same command goes on' in err, results
  results = together('none', 'none')
  assert [result.status for result in results] == [0, 0], results
  assert 'resumed at step 2' in results[0].stdout
  expected, actual = lines(tmp_path / 'one/metrics.jsonl'), lines(tmp_path / 'two/metrics.jsonl')
  assert [row['step'] for row in actual] == list(range(5))
  for mine, theirs in zip(actual, expected):
    for name in ('loss', 'entropy', 'held_out_loss'):
      assert mine[name] == pytest.approx(theirs[name], abs=1e-5), name
    for name in ('grad_norm', 'update_norm', 'param_norm'):
      assert mine[name] == pytest.approx(theirs[name], rel=1e-4), name
    for name in ('num_tokens', 'segments', 'row_length', 'epoch'):
      assert mine[name] == theirs[name], name
  assert_weights_close(tmp_path / 'one', tmp_path / 'two', config.policy)
