"""Small scenarios and talks for tests."""

from eijax.episodes import protocol
from eijax.episodes.state import Episode, SimulatorAnswer
from eijax.episodes.strip_think import strip_think
from eijax.scenarios.load import parse_record
from eijax.scenarios.record import Scenario


def make_record(scene='support', **changes):
  """A valid record; `parent__name=value` sets a nested field, None removes it."""
  cue = {'text': 'the dog', 'cues': ['dog died']}
  record = {
      'id': f'{scene}-1',
      'title': 'A title',
      'scene_tag': scene,
      'data_source': scene,
      'aggressor_profile': {'system_prompt': '### Background\nYou are Ann.', 'opening_line': 'Hello?'},
      'defender_profile': {'system_prompt': 'You are Bo.'},
      'goal_one_liner': 'Hold her.',
      'success_criteria': ['She talks.'],
      'must_avoid': ['Advice.'],
      'initial_calibration': {'initial_anger': 70, 'initial_trust': 30},
      'rub_goals': {'target_anger': 40, 'target_trust': 75, 'target_anger_range': [35, 45]},
      'worst_case': {'worst_anger_min': 90, 'worst_trust_min': 5, 'reason': 'cold'},
      'strip_defender_strategy_ok': True,
      'prompt': [{'role': 'system', 'content': 'You are Bo.'}],
  }
  if scene == 'charm':
    del record['aggressor_profile']['opening_line']
  if changes.pop('appraisal', False):
    names = {'defense': ['boundary', 'holds', 'yields', 'way_out'], 'repair': ['act', 'effect', 'amends']}
    record['appraisal'] = {name: [cue] for name in ('facts', 'needs', 'soothes', 'inflames')}
    record['appraisal'] |= {name: cue for name in names.get(scene, [])}
  for path, value in changes.items():
    parent, _, name = path.rpartition('__')
    target = record[parent] if parent else record
    if value is None:
      del target[name]
    else:
      target[name] = value
  return record


def make_scenario(scene='support', **changes) -> Scenario:
  return parse_record(make_record(scene, **changes), 'talks:1')


def make_answer(anger_delta=-2, trust_delta=3, reply='Go on.', **fields) -> SimulatorAnswer:
  return SimulatorAnswer(reply=reply, anger_delta=anger_delta, trust_delta=trust_delta, **fields)


def make_episode(*turns, scene='support', max_rounds=8, seed=0, **changes) -> Episode:
  """A talk of (policy's raw text, anger delta, trust delta) turns, open unless max_rounds is met."""
  episode = protocol.start(make_scenario(scene, **changes), max_rounds=max_rounds, seed=seed)
  for raw, anger_delta, trust_delta in turns:
    episode = protocol.advance(episode, strip_think(raw), make_answer(anger_delta, trust_delta))
  return episode
