"""Which scenarios a limit leaves: even over the scenes, the same for everybody."""

import collections

import pytest

from eijax.errors import UsageError
from eijax.scenarios.load import load_split
from eijax.scenarios.selection import digest, select
from eijax.scenarios.shipped import shipped_folder
from talks import make_scenario

SET = [make_scenario(scene, id=f'{scene}{i}') for scene, num in (('support', 5), ('defense', 5), ('repair', 1), ('charm', 5)) for i in range(num)]


def scenes_of(chosen):
  return collections.Counter(scenario.scene for scenario in chosen)


def test_without_a_limit_all_are_played_in_their_order():
  assert select(SET) == SET == select(SET, limit=100)


@pytest.mark.parametrize('limit, expected', [
    (4, {'support': 1, 'defense': 1, 'repair': 1, 'charm': 1}),
    (6, {'support': 2, 'defense': 2, 'repair': 1, 'charm': 1}),
    (10, {'support': 3, 'defense': 3, 'repair': 1, 'charm': 3}),  # Repair has only one.
])
def test_a_limit_is_even_over_the_scenes(limit, expected):
  chosen = select(SET, limit=limit)
  assert scenes_of(chosen) == expected
  assert chosen == [scenario for scenario in SET if scenario in chosen]


def test_a_smaller_limit_chooses_among_the_larger_one():
  test_set = load_split(shipped_folder(), 'test')
  chosen = [{s.id for s in select(test_set, limit=limit)} for limit in (8, 40, 100, 213)]
  assert all(small < large for small, large in zip(chosen, chosen[1:]))
  assert {s.id for s in select(test_set[::-1], limit=40)} == chosen[1]
  assert scenes_of(select(test_set, ('charm', 'repair'), 7)) == {'charm': 3, 'repair': 4}


def test_scenes_are_checked():
  with pytest.raises(UsageError, match="'defence' is unknown; use some of support, defense"):
    select(SET, ('defence',))
  with pytest.raises(UsageError, match='leaves no scenario of 1'):
    select(SET[:1], ('charm',))


def test_digest_tells_scenarios_apart():
  assert digest(SET) == digest(list(SET)) != digest(SET[1:])
  assert digest([make_scenario()]) != digest([make_scenario(initial_calibration__initial_anger=65)])
  assert digest([make_scenario()]) == digest([make_scenario(title='Another title')])  # Nobody in the talk sees it.
