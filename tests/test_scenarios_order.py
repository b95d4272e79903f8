"""Scenario order: stratified, without repeats before a pass is over, pure in (step, seed)."""

import collections

import pytest

from eijax.scenarios.load import parse_record
from eijax.scenarios.order import step_scenarios
from eijax.scenarios.record import SCENES
from talks import make_record


def make_pool(**counts):
  return [
      parse_record(make_record(scene, id=f'{scene}-{i}'), 'f:1')
      for scene in SCENES
      for i in range(counts.get(scene, 0))
  ]


@pytest.mark.parametrize('num', [1, 3, 4, 6, 16])
def test_scenes_are_near_even_in_every_step_and_overall(num):
  pool = make_pool(support=7, defense=5, repair=6, charm=9)
  total = collections.Counter({scene: 0 for scene in SCENES})
  for step in range(30):
    counts = collections.Counter(s.scene for s in step_scenarios(pool, step, num, seed=1))
    each = [counts[scene] for scene in SCENES]
    assert sum(each) == num and max(each) - min(each) <= 1
    total += counts
  assert max(total[scene] for scene in SCENES) - min(total[scene] for scene in SCENES) <= 1


def test_every_scenario_once_before_any_repeats():
  pool = make_pool(support=7, charm=5)
  drawn = [s for step in range(40) for s in step_scenarios(pool, step, 4, seed=3)]
  for scene, size in (('support', 7), ('charm', 5)):
    ids = [s.id for s in drawn if s.scene == scene]
    for start in range(0, len(ids) - size, size):
      assert len(set(ids[start : start + size])) == size


def test_no_scenario_twice_in_a_step_that_straddles_two_passes():
  pool = make_pool(support=7, defense=7, repair=7, charm=7)
  for step in range(200):
    ids = [s.id for s in step_scenarios(pool, step, 12, seed=0)]
    assert len(set(ids)) == 12


def test_order_is_pure_in_step_and_seed_and_changes_with_them():
  pool = make_pool(support=16, defense=16, repair=16, charm=16)
  ids = lambda step, seed: [s.id for s in step_scenarios(pool, step, 8, seed)]
  assert ids(5, 0) == ids(5, 0)
  assert len({tuple(ids(step, seed)) for step in range(8) for seed in range(3)}) == 24


def test_bad_arguments_are_refused():
  with pytest.raises(ValueError, match='empty'):
    step_scenarios([], 0, 4, 0)
  with pytest.raises(ValueError, match='num=0'):
    step_scenarios(make_pool(charm=1), 0, 0, 0)
