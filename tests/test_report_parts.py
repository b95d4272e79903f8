"""The parts of the report: series, choice of examples, levels, words."""

import numpy as np
import pytest

from eijax.report import examples, held_out, series, wording
from eijax.report.held_out_figures import spread_labels
from eijax.report.plain_text import clean_text, shorten
from eijax.report.run_folder import Evaluation, Run, Score, read_run
from eijax.report.settings import flatten
import report_runs

_NAN = np.nan


def _row(name, score, scene='support', turns=()):
  return {
      'id': name, 'scene_tag': scene, 'score': score, 'ended_by': 'max_rounds',
      'turns': [
          {'anger': anger, 'trust': trust, 'anger_delta': anger_delta, 'trust_delta': trust_delta}
          for anger, trust, anger_delta, trust_delta in turns
      ],
  }


def _evaluation(step, rows):
  score = Score(mean=0.0, low=-1.0, high=1.0, num=len(rows))
  return Evaluation(step=step, overall=score, scenes={}, num_talks=len(rows), num_failed=0, rows=tuple(rows))


def _pairs(before, after):
  return held_out.pair_up(
      _evaluation(0, [_row(name, score) for name, score in before.items()]),
      _evaluation(9, [_row(name, score) for name, score in after.items()]),
  )


def test_rolling_mean_looks_back_only_and_leaves_out_gaps():
  values = np.array([1.0, 3.0, _NAN, 5.0, 7.0])
  np.testing.assert_allclose(series.rolling_mean(values, 2), [1, 2, 3, 5, 6])
  np.testing.assert_array_equal(series.rolling_mean(np.array([_NAN, 2.0]), 3), [_NAN, 2.0])


def test_thinning_keeps_the_mean_of_neighbours():
  np.testing.assert_allclose(series.thin(np.array([1.0, 3.0, _NAN, _NAN, 5.0]), max_points=3), [2.0, _NAN, 5.0])
  assert len(series.thin(np.arange(10_001.0))) <= series.MAX_POINTS
  values = np.arange(5.0)
  np.testing.assert_array_equal(series.thin(values), values)


def test_missing_and_wrong_metrics_are_gaps():
  metrics = [{'a': 1}, {'a': None}, {}, {'a': 'x'}, {'a': True}]
  np.testing.assert_array_equal(series.pick(metrics, 'a'), [1.0, _NAN, _NAN, _NAN, _NAN])


def test_examples_are_the_median_the_best_and_the_worst_change():
  pairs = _pairs(dict.fromkeys('abcde', 0.0), {'a': 0.4, 'b': -0.2, 'c': 0.9, 'd': 0.1, 'e': None})
  chosen = examples.choose(pairs)
  # Ranked: b -20, d +10, a +40, c +90; e failed. Of four, the lower middle is the median.
  assert [(item.pair.scenario_id, item.rules) for item in chosen] == [('d', ('median',)), ('c', ('best',)), ('b', ('worst',))]


def test_a_pair_chosen_twice_stands_once():
  assert [item.rules for item in examples.choose(_pairs({'a': 0.0}, {'a': 0.5}))] == [('median', 'best', 'worst')]
  two = examples.choose(_pairs({'a': 0.0, 'b': 0.0}, {'a': 0.5, 'b': 0.1}))
  assert [(item.pair.scenario_id, item.rules) for item in two] == [('b', ('median', 'worst')), ('a', ('best',))]


def test_the_change_is_paired_and_only_over_talks_scored_twice():
  change = held_out.mean_change(_pairs({'a': -0.5, 'b': 0.1, 'c': 1.0}, {'a': -0.3, 'b': 0.3, 'd': 0.0}))
  assert change.num == 2
  # Both moved by 20, so that the paired interval has no width whatever the scenarios differ.
  np.testing.assert_allclose([change.mean, change.low, change.high], 20.0)


def test_levels_start_where_the_talk_started_and_a_closed_talk_counts_on():
  short = _row('a', 0.5, turns=[(60, 35, -10, 5)])
  long = _row('b', 0.5, turns=[(50, 20, 0, 0), (44, 28, -6, 8)])
  assert held_out.levels(short, 'anger') == [70, 60]
  np.testing.assert_allclose(held_out.mean_levels([short, long, _row('c', None)], 'anger', 2), [60, 55, 52])
  np.testing.assert_allclose(held_out.mean_levels([short, long], 'trust', 2), [25, 27.5, 31.5])


def test_endings():
  stopped = {'ended_by': 'simulator_stop'}
  rows = [_row('a', 0.2) | stopped, _row('b', 0.0) | stopped, _row('c', -0.2), _row('d', None) | {'ended_by': 'model_failed'}]
  assert held_out.count_endings(rows) == {'stop_good': 1, 'stop_bad': 1, 'max_rounds': 1, 'failed': 1}


@pytest.mark.parametrize('heights', [[50, 51, 49, 50], [100, 99, 98, 97], [0, 0, 0, 0], [10, 40, 70, 100]])
def test_labels_at_line_ends_keep_apart_and_inside(heights):
  ends = {f'label {index}': (float(height), 'anger') for index, height in enumerate(heights)}
  places = sorted(place for _, place, _ in spread_labels(ends, gap=9).values())
  assert min(np.diff(places)) >= 9 - 1e-9 and places[0] >= 0 and places[-1] <= 100


def test_signed_numbers():
  values = [3.14, -3.14, 0.0, -0.04, None, _NAN]
  assert [wording.signed(value) for value in values] == ['+3.1', '\u22123.1', '0.0', '0.0', '–', '–']


@pytest.mark.parametrize('before, after, disjoint', [
    ((-10, -5), (0, 5), True), ((0, 5), (-10, -5), True), ((-10, 1), (0, 5), False), ((0, 5), (5, 9), False),
])
def test_disjoint(before, after, disjoint):
  scores = [Score(mean=0.0, low=low, high=high, num=1) for low, high in (before, after)]
  assert wording.are_disjoint(*scores) == disjoint


def test_a_fall_is_called_a_fall():
  evaluations = tuple(
      Evaluation(step=step, overall=Score(mean=mean, low=mean - 1, high=mean + 1, num=1), scenes={}, num_talks=1, num_failed=0, rows=())
      for step, mean in ((0, 5.0), (9, -5.0))
  )
  run = Run(config={'num_steps': 9}, metrics=(), evaluations=evaluations, partial_steps=())
  headline = wording.headline(run, Score(mean=-10.0, low=-12.0, high=-8.0, num=1))
  assert headline.finding.startswith('The held-out score fell by 10.0 points')
  assert headline.warnings == ()


def test_steps_count_the_same_from_zero_or_one(tmp_path):
  for name, first in (('zero', 0), ('one', 1)):
    report_runs.write_json(tmp_path / name / 'config.json', {'num_steps': 3})
    report_runs.write_lines(tmp_path / name / 'metrics.jsonl', [{'step': first + index} for index in (0, 1, 1, 2)])
    run = read_run(tmp_path / name)
    assert run.steps_done == 3 and len(run.metrics) == 3


def test_hidden_characters_become_visible():
  assert clean_text('a\u202eb\x00c\x7f\x9b\r\nd\te') == 'a[U+202E]b\u2400c\u2421[U+009B]\nd\te'
  assert clean_text('\U000e0041\U000e0042x') == '[U+E0041]x'
  assert clean_text('\ud83d') == '\ufffd'
  family = '\U0001f469\u200d\U0001f467 é नमस्ते 你好 שלום'
  assert clean_text(family) == family


def test_shorten_says_what_is_missing():
  assert shorten('abc', 3) == 'abc'
  assert shorten('abcdef', 3) == 'abc … [3 more characters]'


def test_settings_are_flat_and_plain():
  config = {'a': {'b': 1, 'c': {'d': None}}, 'list': [1, 'x'], 'empty': {}, 'nested': [{'k': 1}]}
  assert list(flatten(config)) == [
      ('a.b', '1'), ('a.c.d', 'null'), ('list', '1, x'), ('empty', '{}'), ('nested', '[{"k": 1}]'),
  ]
