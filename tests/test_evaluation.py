"""Result rows, statistics, and runs that are killed and resumed."""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from eijax.episodes import protocol
from eijax.errors import DataError
from eijax.evaluation.results import result_row, summarise, too_many_failed
from eijax.evaluation.run import evaluate
from eijax.evaluation.statistics import clustered_mean
from eijax.evaluation.store import read_rows, read_summary
from eijax.rollouts.ports import PolicyReply
from talks import make_answer, make_episode, make_scenario

ROW_KEYS = [
    'id', 'scene_tag', 'score', 'anger_score', 'trust_score', 'final_anger', 'final_trust', 'num_rounds',
    'ended_by', 'stop_reason', 'truncated_turns', 'turns', 'error',
]


def test_row_of_a_finished_talk():
  # 70 -> 64 of 70..40 is 0.2; 30 -> 39 of 30..75 is 0.2.
  episode = make_episode(('<think>hm</think>Hi.', -4, 4), ('Yes.', -2, 5), max_rounds=2)
  row = result_row(episode)
  assert list(row) == ROW_KEYS
  assert row['score'] == pytest.approx(0.2) == row['anger_score'] == row['trust_score']
  assert (row['final_anger'], row['final_trust'], row['num_rounds'], row['ended_by']) == (64, 39, 2, 'max_rounds')
  assert row['error'] is None and row['stop_reason'] == ''
  assert row['turns'][0] == {
      'defender': 'Hi.', 'thought': 'hm', 'simulator': 'Go on.', 'anger': 66, 'trust': 34,
      'anger_delta': -4, 'trust_delta': 4, 'reflection': '', 'flags': [],
  }
  json.dumps(row, allow_nan=False)


def test_row_of_a_failed_talk_has_no_score():
  row = result_row(protocol.fail(make_episode(('Hi.', -4, 4)), 'simulator_failed', 'HTTP 500'))
  assert row['score'] is None and row['anger_score'] is None and row['trust_score'] is None
  assert (row['final_anger'], row['num_rounds'], row['error']) == (66, 1, 'HTTP 500')


def make_row(scenario_id, scene, score):
  return {'id': scenario_id, 'scene_tag': scene, 'score': score}


def test_summary_has_the_published_form():
  rows = [
      make_row('a', 'support', 0.5), make_row('b', 'support', 0.1), make_row('c', 'defense', -0.3),
      make_row('d', 'defense', None),
  ]
  summary = summarise(rows, 'm', 's')
  assert list(summary) == [
      'model', 'simulator', 'n', 'failed', 'overall', 'scenes', 'ended_by', 'truncated_turns', 'flagged_turns',
  ]
  assert (summary['model'], summary['simulator'], summary['n'], summary['failed']) == ('m', 's', 4, 1)
  assert summary['overall']['score'] == pytest.approx(10.0) and summary['overall']['n'] == 3
  assert list(summary['scenes']) == ['support', 'defense', 'repair', 'charm']
  assert summary['scenes']['support'] == {'score': 30.0, 'ci95': [10.0, 50.0], 'n': 2}
  assert summary['scenes']['defense'] == {'score': -30.0, 'ci95': [-30.0, -30.0], 'n': 1}
  assert summary['scenes']['charm'] == {'score': None, 'ci95': [None, None], 'n': 0}
  assert summarise([], 'm', 's')['overall']['score'] is None


def test_failed_share():
  assert not too_many_failed({'failed': 5, 'n': 100}) and too_many_failed({'failed': 6, 'n': 100})
  assert not too_many_failed({'failed': 0, 'n': 0})


def test_interval_agrees_with_scipy():
  values = np.random.default_rng(0).normal(size=60)
  ours = clustered_mean(list(values), list(range(60)), seed=1)
  theirs = scipy.stats.bootstrap(
      (values,), np.mean, method='percentile', n_resamples=10_000, rng=np.random.default_rng(2)
  ).confidence_interval
  # Two Monte Carlo estimates of a quantile with standard error about 0.004.
  assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
  assert ours.mean == pytest.approx(values.mean())


def test_repeats_of_a_scenario_do_not_narrow_the_interval():
  values = np.random.default_rng(0).normal(size=20)
  once = clustered_mean(list(values), list(range(20)))
  thrice = clustered_mean(list(np.repeat(values, 3)), list(np.repeat(range(20), 3)))
  naive = clustered_mean(list(np.repeat(values, 3)), list(range(60)))
  width = lambda interval: interval.high - interval.low
  assert width(thrice) == pytest.approx(width(once), rel=0.05) and width(naive) < 0.7 * width(once)


def test_interval_does_not_depend_on_the_order_of_rows():
  rows = [make_row(f's{i % 7}', 'support', ((i * 37) % 19) / 19 - 0.5) for i in range(21)]
  assert summarise(rows, 'm', 's') == summarise(rows[::-1], 'm', 's')
  assert summarise(rows, 'm', 's') != summarise(rows, 'm', 's', seed=1)


class Policy:
  """Says hello; raises KeyboardInterrupt after `stop_after` replies."""

  def __init__(self, stop_after=10**9):
    self.left, self.seeds = stop_after, []

  def submit(self, requests):
    futures = []
    for request in requests:
      self.left -= 1
      if self.left < 0:
        raise KeyboardInterrupt
      self.seeds.append((request.episode_key, request.round, request.seed))
      futures.append(concurrent.futures.Future())
      futures[-1].set_result(PolicyReply(text=f'Hello {request.seed}.'))
    return futures


class Simulator:

  def submit(self, episode, reply):
    future = concurrent.futures.Future()
    if episode.scenario.id == 's1':
      future.set_exception(RuntimeError('down'))
    else:
      future.set_result(make_answer(-(len(reply.visible) % 4), 1, stop=len(episode.turns) + 1 == int(episode.scenario.id[1])))
    return future


SCENARIOS = [make_scenario(scene, id=f's{i}') for i, scene in enumerate(['support', 'repair', 'charm', 'defense', 'charm'], 1)]
SETTINGS = {'model_name': 'm', 'simulator_name': 's', 'max_rounds': 6, 'thinking': False, 'seed': 4}


def run(folder, policy, **settings):
  return evaluate(SCENARIOS, policy, Simulator(), folder, **(SETTINGS | settings))


def test_evaluation_writes_rows_and_summary(tmp_path):
  summary = run(tmp_path, Policy())
  assert summary == read_summary(tmp_path) and (summary['n'], summary['failed']) == (5, 1)
  rows = read_rows(tmp_path)
  assert all(list(row) == ROW_KEYS for row in rows)
  assert {row['id']: row['ended_by'] for row in rows} == {
      's1': 'simulator_failed', 's2': 'simulator_stop', 's3': 'simulator_stop', 's4': 'simulator_stop',
      's5': 'simulator_stop',
  }
  assert next(row for row in rows if row['id'] == 's1')['error'] == 'RuntimeError: down'


@pytest.mark.parametrize('lockstep', [True, False])
@pytest.mark.parametrize('stop_after', [0, 6, 13])
def test_resumed_run_equals_uninterrupted_one(tmp_path, stop_after, lockstep):
  whole = run(tmp_path / 'whole', Policy(), num_samples=2)
  with pytest.raises(KeyboardInterrupt):
    run(tmp_path / 'cut', Policy(stop_after), num_samples=2, lockstep=lockstep)
  with open(tmp_path / 'cut' / 'results.jsonl', 'ab') as file:
    file.write(b'{"id": "s5", "sc')  # A row that the kill cut short.
  num_kept = len(read_rows(tmp_path / 'cut'))
  again = Policy()
  assert run(tmp_path / 'cut', again, num_samples=2, lockstep=lockstep) == whole
  assert len({key for key, _, _ in again.seeds}) == 10 - num_kept
  by_place = lambda folder: sorted(read_rows(folder), key=lambda row: (row['id'], row['sample']))
  assert by_place(tmp_path / 'cut') == by_place(tmp_path / 'whole')
  nothing = Policy()
  assert run(tmp_path / 'cut', nothing, num_samples=2) == whole and not nothing.seeds


def test_folder_of_another_evaluation_is_refused(tmp_path):
  run(tmp_path, Policy())
  with pytest.raises(DataError, match="holds a result for scenario 's1'"):
    evaluate(SCENARIOS[1:], Policy(), Simulator(), tmp_path, **SETTINGS)
  with pytest.raises(ValueError, match='num_samples=0'):
    run(tmp_path, Policy(), num_samples=0)


def test_conversation_rooms_do_not_import_jax():
  code = (
      'import sys; import eijax.evaluation.run, eijax.evaluate.run, eijax.evaluate.flags, eijax.simulator.client, eijax.rollouts.endpoint_policy, '
      'eijax.rewards.training, eijax.scenarios.order; '
      "sys.exit(str([m for m in sys.modules if m.split('.')[0] in ('jax', 'flax', 'optax')]) if 'jax' in sys.modules else 0)"
  )
  root = pathlib.Path(__file__).resolve().parents[1]
  subprocess.run([sys.executable, '-c', code], check=True, cwd=root, env=dict(os.environ, PYTHONPATH=str(root)))
