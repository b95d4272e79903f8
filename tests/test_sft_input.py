"""Flags of fine-tuning, and what a user may get wrong."""

import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from eijax import presets
from eijax.errors import EijaxError, UsageError
from eijax.sft import flags as flags_lib
from eijax.sft.run import fine_tune
from saved_run import write_run
from test_flags import leaves
from tiny_run import use_one_device
from tiny_sft import build, talks, write_chats

ROOT = pathlib.Path(__file__).resolve().parent.parent


# ---- Flags ----------------------------------------------------------------------------------------


def test_every_value_has_a_flag():
  without = {'algorithm', 'preset', 'policy_source', 'scratch', 'packing.num_minibatches'} | {
      f'policy.{name}' for name in (
          'activation', 'qkv_bias', 'query_key_norm', 'norm_offset', 'branch_norms', 'embedding_scale', 'attention_scale',
          'rope_scaling', 'rope_factor', 'rope_low_turns', 'rope_high_turns', 'rope_original_length', 'local_layers',
          'window', 'local_rope_theta')}
  paths = [path for path, _ in flags_lib.OVERRIDES.values()]
  assert len(set(paths)) == len(paths)
  assert {*paths, *without} == set(leaves(build('--data=a.jsonl')))


def test_recipes():
  demo, real = build('--data=a.jsonl, b.jsonl'), build('--data=a.jsonl', '--policy=qwen3_8b')
  assert demo.data.sources == ('a.jsonl', 'b.jsonl') and demo.scratch and not real.scratch
  assert demo.optimizer == presets.demo().warmup.optimizer and demo.packing == presets.demo().warmup.packing
  assert build('--data=a', '--preset=qwen3_8b').optimizer.learning_rate == 1e-5
  with pytest.raises(UsageError, match='too_long='):
    build('--data=a', '--too_long=squeeze')
  with pytest.raises(UsageError, match='--data= must name at least one source'):
    build('--data=,')
  with pytest.raises(UsageError, match='num_epochs=0'):
    build('--data=a', '--num_epochs=0')


# ---- What a user may get wrong --------------------------------------------------------------------


@pytest.fixture(scope='module', name='policy')
def fixture_policy(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('policy'))[0]


def command(*arguments):
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  return subprocess.run([sys.executable, '-m', 'eijax.sft', *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
                        timeout=300, check=False)


def test_help_lists_the_flags():
  result = command('--help')
  assert result.returncode == 0 and not result.stderr
  for name in (*flags_lib.OVERRIDES, 'policy', 'preset', 'workdir', 'tpu', 'resume'):
    assert f'--{name}:' in result.stdout or f'--[no]{name}:' in result.stdout


@pytest.mark.parametrize('arguments, status, words', [
    (['--data=CHATS', '--num_epoch=1'], 2, "Unknown command line flag 'num_epoch'. Did you mean: num_epochs"),
    (['--data=BROKEN'], 1, 'broken.jsonl:2: column'),
])
def test_the_command_refuses_in_one_line(bad_input, tmp_path, arguments, status, words):
  result = command(*bad_input(arguments), f'--workdir={tmp_path / "run"}')
  assert result.returncode == status and result.stderr.count('\n') == 1
  assert result.stderr.startswith('error: ') and words in result.stderr
  assert not (tmp_path / 'run').exists()


@pytest.fixture(name='bad_input')
def fixture_bad_input(policy, tmp_path):
  """Replaces names in arguments by files: chats, a file with a broken line, a policy without its tokenizer."""
  good = write_chats(tmp_path / 'chats.jsonl', talks(6))
  (tmp_path / 'broken.jsonl').write_text(pathlib.Path(good).read_text().splitlines()[0] + '\n{"messages": [\n')
  headless = tmp_path / 'headless'
  for name in ('policy', 'checkpoints'):
    shutil.copytree(policy / name, headless / name)
  (headless / 'policy/tokenizer.model').unlink()
  names = {'CHATS': good, 'BROKEN': str(tmp_path / 'broken.jsonl'), 'HEADLESS': str(headless)}

  def replaced(arguments):
    for name, path in names.items():
      arguments = [argument.replace(name, path) for argument in arguments]
    return arguments

  return replaced


@pytest.mark.parametrize('arguments, status, words', [
    ([], 2, '--data= must name at least one source'),
    (['--data=nowhere.jsonl'], 1, 'nowhere.jsonl: cannot be read'),
    (['--data=no_such_set'], 2, "'no_such_set' is neither a folder nor a data set"),
    (['--data=CHATS', '--held_out=nowhere.jsonl'], 1, 'nowhere.jsonl: cannot be read'),
    (['--data=CHATS', '--policy=nowhere'], 2, "policy='nowhere' is neither a preset nor the folder of a run"),
    (['--data=CHATS', '--policy=HEADLESS'], 1, 'policy/tokenizer.model: the tokenizer cannot be read'),
    (['--data=CHATS', '--preset=qwen3_8b'], 2, "preset='qwen3_8b' starts from a trained policy and has none of its own"),
    (['--data=CHATS', '--lora_rank=2'], 2, 'lora_rank=2 adapts a trained policy'),
    (['--data=CHATS', '--mesh=fsdp=3'], 2, "mesh='fsdp=3' means"),
    (['--data=CHATS', '--num_micro_batches=2'], 2, 'rows_per_minibatch=3 must be divisible by num_micro_batches (2)'),
])
def test_refusals_come_before_any_work(bad_input, tmp_path, monkeypatch, arguments, status, words):
  if 'no_such_set' in arguments[-1:] and importlib.util.find_spec('tensorflow_datasets') is None:
    words = "pip install 'eijax[data]'"
  use_one_device(monkeypatch.setattr)
  with pytest.raises(EijaxError) as caught:
    fine_tune(build(*bad_input(arguments)), str(tmp_path / 'run'), tpu=False, resume=True)
  assert caught.value.exit_code == status and words in str(caught.value) and '\n' not in str(caught.value)
  assert not (tmp_path / 'run/config.json').exists()
