"""The table that sets runs with and without turn credit side by side."""

import importlib.util
import pathlib

import pytest

from eijax import jsonl
from eijax.errors import DataError

ROOT = pathlib.Path(__file__).resolve().parent.parent


def load_script():
  spec = importlib.util.spec_from_file_location('turn_credit', ROOT / 'experiments' / 'turn_credit.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def turn_credit():
  return load_script()


def write_run(folder, algorithm, seed, before, after, rewards):
  (folder / 'eval').mkdir(parents=True)
  jsonl.write_json(folder / 'config.json', {'algorithm': algorithm, 'seed': seed, 'num_steps': len(rewards)})
  jsonl.write_lines(folder / 'metrics.jsonl', [{'step': i, 'reward': value} for i, value in enumerate(rewards)])
  for step, score in ((0, before), (len(rewards), after)):
    path = folder / 'eval' / f'step_{step:06d}'
    path.mkdir()
    jsonl.write_json(path / 'summary.json', {'overall': {'score': score, 'ci95': [score - 4, score + 4], 'n': 128}})
  return str(folder)


def test_table_by_hand(turn_credit, tmp_path):
  runs = [turn_credit.read_run(write_run(tmp_path / name, algorithm, seed, before, after, rewards))
          for name, algorithm, seed, before, after, rewards in (
              ('a', 'ctc_grpo', 0, -40.0, 2.0, [-0.4, -0.3, -0.2, 0.0]),
              ('b', 'ctc_grpo', 1, -38.0, -6.0, [-0.4, -0.2, -0.1, -0.1]),
              ('c', 'grpo', 0, -40.0, -10.0, [-0.4, -0.4, -0.3, -0.2]))]
  lines = turn_credit.table(runs).splitlines()
  assert lines[2] == ('| ctc_grpo | 0 | -40.0 [-44.0, -36.0] | +2.0 [-2.0, +6.0] | +42.0 | -40.0 | -30.0 | -20.0 | +0.0 |')
  assert lines[5] == '| **ctc_grpo** | mean of 2 | -39.0 | -2.0 | +37.0 | -40.0 | -25.0 | -15.0 | -5.0 |'
  assert lines[6].startswith('| **grpo** | mean of 1 | -40.0 | -10.0 | +30.0 |')
  turn_credit.draw(runs, str(tmp_path / 'curves.png'))
  assert (tmp_path / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_unfinished_run_is_refused(turn_credit, tmp_path):
  folder = write_run(tmp_path / 'a', 'grpo', 0, -40.0, -10.0, [-0.4, -0.3])
  (tmp_path / 'a' / 'eval' / 'step_000002' / 'summary.json').unlink()
  with pytest.raises(DataError, match='has not finished'):
    turn_credit.read_run(folder)
