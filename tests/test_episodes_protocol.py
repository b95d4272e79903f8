"""The state machine: openings, clips, ends, failures."""

import dataclasses

import pytest

from eijax.episodes import protocol
from eijax.episodes.state import EmotionState, SimulatorAnswer
from eijax.episodes.strip_think import strip_think
from talks import make_answer, make_episode, make_scenario

HELLO = strip_think('Hello.')


def test_start_takes_the_initial_levels():
  episode = protocol.start(make_scenario(), max_rounds=8, seed=3)
  assert episode.state == EmotionState(anger=70, trust=30)
  assert (episode.turns, episode.ended_by, episode.seed) == ((), None, 3)
  with pytest.raises(ValueError, match='max_rounds=0'):
    protocol.start(make_scenario(), max_rounds=0, seed=0)


@pytest.mark.parametrize(
    'state, answer, expected',
    [
        ((50, 50), {'anger_delta': -3, 'trust_delta': 4}, (47, 54)),
        ((50, 50), {'anger_delta': -30, 'trust_delta': 99}, (40, 60)),
        ((95, 4), {'anger_delta': 10, 'trust_delta': -10}, (100, 0)),
        ((50, 50), {'anger_delta': None, 'trust_delta': 2}, (50, 52)),
        # Levels count only without deltas, and are not bound to steps of ten.
        ((50, 50), {'anger_delta': 1, 'trust_delta': None, 'anger': 0, 'trust': 0}, (51, 50)),
        ((50, 50), {'anger_delta': None, 'trust_delta': None, 'anger': 20, 'trust': 130}, (20, 100)),
        ((50, 50), {'anger_delta': None, 'trust_delta': None, 'anger': -5}, (0, 50)),
    ],
)
def test_clips(state, answer, expected):
  anger, trust = state
  after = protocol.next_state(EmotionState(anger=anger, trust=trust), SimulatorAnswer(reply='x', **answer))
  assert (after.anger, after.trust) == expected


def test_answer_without_levels_is_refused():
  with pytest.raises(ValueError, match='neither deltas nor levels'):
    protocol.advance(make_episode(), HELLO, SimulatorAnswer(reply='x', anger_delta=None, trust_delta=None))


def test_turn_records_the_realised_change():
  episode = make_episode(initial_calibration__initial_anger=95, worst_case__worst_anger_min=100)
  answer = make_answer(10, -50, reply='Leave.', reflection={'tone': 'cold'})
  (turn,) = protocol.advance(episode, HELLO, answer).turns
  assert (turn.anger, turn.anger_delta, turn.trust, turn.trust_delta) == (100, 5, 20, -10)
  assert (turn.simulator, turn.reflection, turn.reply) == ('Leave.', {'tone': 'cold'}, HELLO)


def test_talk_ends_after_max_rounds():
  episode = make_episode(('a', 0, 0), ('b', 0, 0), max_rounds=3)
  assert episode.ended_by is None
  episode = protocol.advance(episode, HELLO, make_answer())
  assert (episode.ended_by, episode.stop_reason, len(episode.turns)) == ('max_rounds', '', 3)


def test_stop_of_the_user_ends_the_talk_even_in_the_last_round():
  episode = protocol.advance(make_episode(max_rounds=1), HELLO, make_answer(stop=True, stop_reason='settled'))
  assert (episode.ended_by, episode.stop_reason) == ('simulator_stop', 'settled')


def test_failure_keeps_state_and_turns():
  before = make_episode(('a', -5, 5))
  after = protocol.fail(before, 'simulator_failed', 'HTTP 500')
  assert (after.state, after.turns, after.error) == (before.state, before.turns, 'HTTP 500')
  assert protocol.is_failed(after) and not protocol.is_failed(before)
  with pytest.raises(ValueError, match="ended_by='max_rounds'"):
    protocol.fail(before, 'max_rounds', '')


def test_ended_talk_cannot_go_on():
  for ended in (make_episode(('a', 0, 0), max_rounds=1), protocol.fail(make_episode(), 'model_failed', 'x')):
    with pytest.raises(ValueError, match='has ended'):
      protocol.advance(ended, HELLO, make_answer())
    with pytest.raises(ValueError, match='has ended'):
      protocol.fail(ended, 'model_failed', 'x')


def test_episodes_are_values():
  episode = make_episode()
  protocol.advance(episode, HELLO, make_answer())
  assert episode.turns == ()
  with pytest.raises(dataclasses.FrozenInstanceError):
    episode.ended_by = 'max_rounds'


def held(scene, num, closing_reply=True, **answers):
  episode = protocol.start(make_scenario(scene), max_rounds=2, seed=0, closing_reply=closing_reply)
  for _ in range(num):
    episode = protocol.advance(episode, HELLO, make_answer(-4, 4, **answers))
  return episode


def test_a_full_charm_talk_closes_with_a_reply_that_changes_nothing():
  waiting = held('charm', 2)
  assert waiting.ended_by is None and protocol.awaits_closing(waiting)
  ended = protocol.close(waiting, strip_think('Good night.'))
  assert (ended.ended_by, ended.closing.visible) == ('max_rounds', 'Good night.')
  plain = held('charm', 2, closing_reply=False)
  assert plain.ended_by == 'max_rounds' and plain.closing is None
  assert (ended.state, ended.turns) == (plain.state, plain.turns)


def test_only_a_charm_talk_that_runs_its_length_has_a_closing_reply():
  assert held('support', 2).ended_by == 'max_rounds'
  stopped = held('charm', 1, stop=True)
  assert stopped.ended_by == 'simulator_stop' and not protocol.awaits_closing(stopped)
  for episode in (stopped, held('charm', 1), held('support', 2)):
    assert not protocol.awaits_closing(episode)
    with pytest.raises(ValueError, match='awaits no closing reply'):
      protocol.close(episode, HELLO)


def test_no_round_follows_the_last_one_and_a_failed_closing_is_a_failure():
  waiting = held('charm', 2)
  with pytest.raises(ValueError, match='has had its 2 rounds; only a closing reply'):
    protocol.advance(waiting, HELLO, make_answer())
  failed = protocol.fail(waiting, 'model_failed', 'HTTP 500')
  assert protocol.is_failed(failed) and failed.state == waiting.state
