"""Paired statistics, what is paired with what, and the command as a user meets it."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

import evaluation_folders
from eijax.comparison import findings, wording
from eijax.comparison.alignment import align
from eijax.comparison.conditions import differing_settings
from eijax.comparison.paired import cluster_means, holm, summarise_differences
from eijax.errors import DataError
from eijax.evaluation.reading import Evaluation, read_evaluation
from evaluation_folders import fail, write_folder

ROOT = pathlib.Path(__file__).resolve().parent.parent


def make_row(name, score, scene='support', anger=50, **more):
  return {
      'id': name, 'scene_tag': scene, 'score': score, 'final_anger': anger, 'final_trust': 40, 'ended_by': 'max_rounds',
      'turns': [{'anger': 50, 'trust': 40, 'anger_delta': 5, 'trust_delta': 5}],
  } | more


def make_pair(tmp_path, rows_a, rows_b, more_a=None, more_b=None):
  return [
      read_evaluation(write_folder(tmp_path / side, rows, side, **(more or {})))
      for side, rows, more in (('a', rows_a, more_a), ('b', rows_b, more_b))
  ]


def test_small_tests_are_exact():
  values = [3.0, -1.0, 4.0, 1.5, 2.0, -0.5]
  flips = [np.mean(np.multiply(values, signs)) for signs in itertools.product((1, -1), repeat=len(values))]
  by_hand = np.mean(np.abs(flips) >= np.mean(values) - 1e-12)
  assert summarise_differences(dict(zip('abcdef', values))).p_value == pytest.approx(by_hand, abs=1e-12)


def test_large_tests_agree_with_the_t_test():
  values = np.random.default_rng(0).normal(0.2, 1, 150)
  found = summarise_differences({str(place): value for place, value in enumerate(values)})
  # Normal differences: the two tests are the same in the limit; 10,000 draws have a standard error of 0.002.
  assert found.p_value == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue, abs=0.006)
  assert found.effect_size == pytest.approx(values.mean() / values.std(ddof=1))
  assert found.low < found.mean < found.high
  # The 80 % power of a t test at this difference, by simulation.
  rng = np.random.default_rng(1)
  spread = values.std(ddof=1)
  hits = scipy.stats.ttest_1samp(rng.normal(found.detectable, spread, (4000, 150)), 0, axis=1).pvalue < 0.05
  assert hits.mean() == pytest.approx(0.8, abs=0.025)


def test_the_result_does_not_depend_on_the_order():
  values = {str(place): value for place, value in enumerate(np.random.default_rng(0).normal(0.1, 1, 40))}
  assert summarise_differences(values) == summarise_differences(dict(reversed(values.items())))
  assert summarise_differences(values).p_value != summarise_differences(values, seed=1).p_value


def test_too_few_values():
  none, one = summarise_differences({}), summarise_differences({'a': 3.0})
  assert none.num == 0 and none.mean is None and none.p_value is None
  assert (one.mean, one.p_value, one.low, one.effect_size, one.wins) == (3.0, 1.0, None, None, 1)
  same = summarise_differences({'a': 0.0, 'b': 0.0})
  assert same.p_value == 1.0 and same.effect_size is None and same.ties == 2


def test_ties():
  found = summarise_differences({'a': 1.0, 'b': -1.0, 'c': 1.1, 'd': -5.0, 'e': 0.1 + 0.2 - 0.3}, tie_margin=1.0)
  assert (found.wins, found.ties, found.losses) == (1, 3, 1)


def test_holm_by_hand():
  assert holm({'a': 0.01, 'b': 0.04, 'c': 0.03, 'd': None}) == pytest.approx({'a': 0.03, 'b': 0.06, 'c': 0.06, 'd': None})
  assert holm({'a': 0.6, 'b': 0.9}) == {'a': 1.0, 'b': 1.0}


def test_samples_of_a_scenario_count_as_one():
  assert cluster_means([('a', 1.0), ('b', 5.0), ('a', 3.0)]) == {'a': 2.0, 'b': 5.0}


def test_repeats_do_not_make_a_difference_more_certain(tmp_path):
  rng = np.random.default_rng(0)
  scores = rng.uniform(-0.5, 0.5, 30)
  once = [make_row(f's{place}', score) for place, score in enumerate(scores)]
  zero = [make_row(f's{place}', 0.0) for place in range(30)]
  often = [row | {'sample': sample} for row in once for sample in range(8)]
  ps = [findings.compare(*make_pair(tmp_path / name, zero, rows))['overall']['p_value'] for name, rows in (('1', once), ('8', often))]
  assert ps[0] == pytest.approx(ps[1])


def test_what_is_paired_and_what_is_left_out(tmp_path):
  good = make_row('both', 0.1)
  rows_a = [
      good, make_row('only-a', 0.2), make_row('failed-b', 0.1), make_row('scene', 0.1), make_row('edited', 0.1),
      make_row('half', 0.1, sample=0), fail(make_row('half', 0.5, sample=1)),
  ]
  rows_b = [
      good | {'score': 0.3}, make_row('only-b', 0.2), fail(make_row('failed-b', 0.1)), make_row('scene', 0.1, scene='charm'),
      make_row('edited', 0.1, turns=[{'anger': 60, 'trust': 40, 'anger_delta': 0, 'trust_delta': 0}]),
      make_row('half', 0.2, sample=0), make_row('half', 0.4, sample=1),
  ]
  found = align(*make_pair(tmp_path, rows_a, rows_b))
  assert [(pair.id, round(pair.difference, 6)) for pair in found.pairs] == [('both', 20.0), ('half', 20.0)]
  reasons = {(item.id, item.side): item.reason for item in found.left_out}
  assert reasons == {
      ('only-a', 'A'): 'only in A', ('only-b', 'B'): 'only in B', ('failed-b', 'B'): 'failed (simulator_failed)',
      ('failed-b', 'A'): 'every talk failed in B', ('half', 'A'): 'failed (simulator_failed)',
      **{('scene', side): 'another scene in A than in B' for side in 'AB'},
      **{('edited', side): 'another start state in A than in B: the scenario was edited' for side in 'AB'},
  }
  # Every row is in a pair or is named.
  assert {row['id'] for row in rows_a + rows_b} == {pair.id for pair in found.pairs} | {item.id for item in found.left_out}


def test_unlike_conditions_are_named(tmp_path):
  more = {'simulator': 'x', 'settings': {'max_rounds': 8, 'simulator': {'temperature': 0.7, 'url': 'a'}, 'model_temperature': 0.6}}
  other = {'simulator': 'y', 'settings': {'max_rounds': 6, 'simulator': {'temperature': 0.2, 'url': 'b'}, 'model_temperature': 1.0}}
  a, b = make_pair(tmp_path, [make_row('s', 0.1)], [fail(make_row('s', 0.1)), make_row('t', 0.2)], more, other)
  assert [name for name, _, _ in differing_settings(a, b)] == ['max_rounds', 'simulator.temperature']
  write_folder(tmp_path / 'c', [make_row('s', 0.1), fail(make_row('t', 0.1))], 'b', **other)
  (tmp_path / 'c' / 'summary.json').unlink()
  b = read_evaluation(tmp_path / 'c')
  warnings = findings.compare(a, b)['warnings']
  assert not any('simulators differ' in warning for warning in warnings)  # B does not say who played the user.
  for words in ('B is not finished', '1 of 2 talks of B failed (above 5 %)', '1 entry is left out'):
    assert any(words in warning for warning in warnings), words
  warnings = findings.compare(a, read_evaluation(write_folder(tmp_path / 'd', [make_row('s', 0.1)], 'b', **other)))['warnings']
  assert any("The simulators differ: A x, B y" in warning for warning in warnings)
  assert any('max_rounds differs: A 8, B 6' in warning for warning in warnings)


def test_settings_of_a_training_run_are_found(tmp_path):
  for name, rounds in (('one', 8), ('two', 4)):
    write_folder(tmp_path / name / 'eval' / 'step_000010', [make_row('s', 0.1)])
    (tmp_path / name / 'config.json').write_text(json.dumps({'episodes': {'max_rounds': rounds}, 'optimizer': {'learning_rate': rounds}}))
  a, b = (read_evaluation(tmp_path / name / 'eval' / 'step_000010') for name in ('one', 'two'))
  assert differing_settings(a, b) == [('episodes.max_rounds', 8, 4)]


def test_the_scenarios_that_moved_most(tmp_path):
  changes = {'a': 0.1, 'b': 0.5, 'c': -0.3, 'd': 0.0, 'e': -0.2, 'f': 0.3}
  found = findings.compare(
      *make_pair(
          tmp_path, [make_row(name, 0.0) for name in changes],
          [make_row(name, change, anger=20, ended_by='simulator_stop') for name, change in changes.items()],
      ),
      num_moved=2,
  )
  assert [row['id'] for row in found['moved']['up']] == ['b', 'f']
  assert [row['id'] for row in found['moved']['down']] == ['c', 'e']
  best = found['moved']['up'][0]
  assert best['difference'] == pytest.approx(50) and best['a']['final'] == {'anger': 50, 'trust': 40}
  assert best['b'] == {'score': 50.0, 'samples': 1, 'final': {'anger': 20, 'trust': 40}, 'ended_by': ['simulator_stop']}
  assert (found['overall']['wins'], found['overall']['ties'], found['overall']['losses']) == (3, 1, 2)


@pytest.fixture(name='pool', scope='module')
def _pool():
  """One model, four talks on each of 32 scenarios: scenario id -> rows."""
  by_id = {}
  for row in evaluation_folders.scripted_rows('decent', 8, samples=4):
    by_id.setdefault(row['id'], []).append({key: value for key, value in row.items() if key != 'sample'})
  return by_id


def _two_runs(pool, seed):
  """Two evaluations of the model with no talk in common."""
  rng = np.random.default_rng(seed)
  drawn = {name: rng.permutation(len(rows))[:2] for name, rows in pool.items()}
  return [[rows[drawn[name][side]] for name, rows in pool.items()] for side in (0, 1)]


def _p_value(rows_a, rows_b):
  a, b = (
      Evaluation(folder=pathlib.Path(name), name=name, simulator=None, rows=tuple(rows), summary=None, settings={})
      for name, rows in (('a', rows_a), ('b', rows_b))
  )
  # A fifth of the permutations that the command draws: the p values wander by 0.005 and the test takes seconds.
  return summarise_differences({pair.id: pair.difference for pair in align(a, b).pairs}, num_permutations=1999).p_value


def test_two_runs_of_one_model_do_not_differ_and_ten_points_do(pool):
  num_found = num_planted = 0
  for seed in range(100):
    rows_a, rows_b = _two_runs(pool, seed)
    num_found += _p_value(rows_a, rows_b) < 0.05
    num_planted += _p_value(rows_a, [row | {'score': min(1.0, row['score'] + 0.1)} for row in rows_b]) < 0.05
  assert num_found <= 10
  # With 32 scenarios of this spread, 10 points are some eight standard errors.
  assert num_planted == 100


def test_findings_are_consistent_and_repeatable(pool, tmp_path):
  a, b = make_pair(tmp_path, *_two_runs(pool, 0))
  found = findings.compare(a, b)
  assert found == findings.compare(a, b) and json.loads(json.dumps(found, allow_nan=False)) == found
  overall = found['overall']
  assert overall['n'] == 32 == sum(part['n'] for part in found['scenes'].values())
  assert overall['difference'] == pytest.approx(overall['score_b'] - overall['score_a'])
  assert overall['score_a'] == pytest.approx(a.summary['overall']['score'], abs=1e-5)
  back = findings.compare(b, a)['overall']
  assert back['difference'] == pytest.approx(-overall['difference']) and back['wins'] == overall['losses']
  assert all(part['p_holm'] >= part['p_value'] for part in found['scenes'].values())
  assert findings.compare(a, a)['overall']['p_value'] == 1.0
  assert 'No difference found' in wording.text(findings.compare(a, a)) and 'same folder' in wording.text(findings.compare(a, a))


def test_text_of_a_hostile_folder_stays_text(tmp_path):
  name = 'a|b\n# boo <script>alert(1)</script> \x1b[31m`x`'
  found = findings.compare(*make_pair(tmp_path, [make_row(name, 0.1)], [make_row(name, 0.5)], {'simulator': name}, {'simulator': 'x'}))
  text, page = wording.text(found), wording.markdown(found)
  assert '\x1b' not in text + page and '\n# boo' not in text + page
  assert '<script' not in page.replace('\\<', '') and '\n|' in page
  table = [line for line in page.splitlines() if line.startswith('| a')]
  assert len(table) == 1 and table[0].replace('\\|', '').count('|') == 8


def _run(*arguments, cwd=None):
  return subprocess.run(
      [sys.executable, '-m', 'eijax.compare', *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False,
      cwd=cwd, env=os.environ | {'PYTHONPATH': str(ROOT)},
  )


def test_the_command(tmp_path):
  make_pair(tmp_path, [make_row(f's{i}', 0.0) for i in range(12)], [make_row(f's{i}', 0.1 + 0.01 * i) for i in range(12)])
  done = _run(tmp_path / 'a', tmp_path / 'b', '--out', tmp_path / 'out', '--num_moved=1')
  assert done.returncode == 0, done.stderr
  assert 'B is higher than A by 15.5 points (p = 0.0005)' in done.stdout
  written = json.loads((tmp_path / 'out' / 'compare.json').read_text())
  assert written['overall']['n'] == 12 and len(written['moved']['up']) == 1
  assert '**B is higher than A by 15.5 points' in (tmp_path / 'out' / 'compare.md').read_text()
  assert json.loads(_run('--json', '--num_moved=1', tmp_path / 'a', tmp_path / 'b').stdout) == written


def test_bad_input_is_one_line(tmp_path):
  a, b = tmp_path / 'a', tmp_path / 'b'
  make_pair(tmp_path, [make_row('s', 0.0)], [make_row('t', 0.0)])
  write_folder(tmp_path / 'run' / 'eval' / 'step_000000', [make_row('s', 0.1)])
  for folder, words in (
      (tmp_path / 'none', 'is not a folder'), (tmp_path, 'holds no results.jsonl'),
      (tmp_path / 'run', 'is a training run, not one evaluation; give one of its 1'),
  ):
    with pytest.raises(DataError, match=words):
      read_evaluation(folder)
  for arguments, code, words in (
      ((a, b), 1, 'no scenario is scored in both (2 entries'),
      ((a, b, '--tie_margin=nan'), 2, 'tie_margin'),
  ):
    done = _run(*arguments)
    assert done.returncode == code and not done.stdout, done
    assert done.stderr.startswith('error: ') and words in done.stderr and done.stderr.count('\n') == 1, done.stderr


@pytest.mark.parametrize('change, words', [
    ({'score': 2}, '`score` = 2 must be null or a number in -1..1'), ({'scene_tag': 'x'}, '`scene_tag`'),
    ({'turns': [{'anger': 'x'}]}, 'turn 1: `anger`'), ({'sample': -1}, '`sample` = -1'), ({'id': 3}, '`id` = 3'),
])
def test_broken_rows_are_refused(tmp_path, change, words):
  folder = write_folder(tmp_path, [make_row('s', 0.1)])
  (folder / 'results.jsonl').write_text(json.dumps(make_row('s', 0.1) | change) + '\n')
  with pytest.raises(DataError) as caught:
    read_evaluation(folder)
  assert words in str(caught.value) and 'record 1' in str(caught.value)


def test_a_talk_that_stands_twice_is_refused(tmp_path):
  with pytest.raises(DataError, match="'s', sample 0 stands twice"):
    read_evaluation(write_folder(tmp_path, [make_row('s', 0.1), make_row('s', 0.2)]))
