"""The recipe of EICAP: UltraChat's own files become chats, and its settings reach eijax.sft."""

import importlib.util
import json
import pathlib
import subprocess
import sys

import pytest

from eijax.conversations.load import load_jsonl
from eijax.errors import DataError
from tiny_sft import build

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / 'experiments' / 'eicap_ultrachat.py'


@pytest.fixture(name='recipe', scope='module')
def fixture_recipe():
  spec = importlib.util.spec_from_file_location('eicap_ultrachat', SCRIPT)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_files_of_ultrachat_become_chats(recipe, tmp_path):
  lines = [{'id': '0', 'data': ['Hi', 'Ho', 'And?', 'So.']}, {'id': '1', 'data': ['Hi', '']},
           {'prompt': 'Hi', 'messages': [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hey'}]}]
  path, target = tmp_path / 'train_0.jsonl', tmp_path / 'chats.jsonl'
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  assert recipe.convert([str(path)], target, 0) == (2, 1)
  said = [[(m.role, m.content) for m in c.messages] for c in load_jsonl(target)]
  assert said == [[('user', 'Hi'), ('assistant', 'Ho'), ('user', 'And?'), ('assistant', 'So.')], [('user', 'Hi'), ('assistant', 'Hey')]]
  assert recipe.convert([str(path)], target, 1) == (1, 0)
  path.write_text(json.dumps(lines[1]))
  with pytest.raises(DataError, match='no conversation could be used, the first because .*train_0.jsonl:1: field `messages'):
    recipe.convert([str(path)], target, 0)


def test_the_settings_are_those_of_the_command(recipe):
  config = build('--data=a.jsonl', '--preset=qwen3_8b', '--policy=qwen3_8b', *(f'--{k}={v}' for k, v in recipe.SETTINGS.items()))
  assert (config.policy.lora.rank, config.policy.lora.alpha, config.optimizer.learning_rate) == (24, 48, 2e-4)
  # The share of Qwen2.5-7B that the docstring names: 28 layers, widths 3584 and 18944, 4 key-value heads of 128.
  widths = 2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944)
  assert 28 * 24 * widths / 7.6e9 == pytest.approx(0.008, abs=0.0002)


@pytest.mark.parametrize('arguments, status, words', [
    (['--help'], 0, 'UltraChat'), ([], 2, 'error: --data and --policy must both be given'),
    (['--data=nowhere.jsonl', '--policy=x'], 1, 'error: nowhere.jsonl: cannot be read'),
])
def test_the_script_says_what_it_needs(tmp_path, arguments, status, words):
  result = subprocess.run([sys.executable, str(SCRIPT), f'--workdir={tmp_path / "run"}', *arguments], capture_output=True, text=True,
                          timeout=120, check=False, env={'PYTHONPATH': str(SCRIPT.parent.parent)})
  assert result.returncode == status and words in result.stdout + result.stderr and 'Traceback' not in result.stderr
