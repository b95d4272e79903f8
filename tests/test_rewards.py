"""Scores and rewards against values worked out by hand."""

import pytest

from eijax.episodes import protocol
from eijax.episodes.state import EmotionState
from eijax.episodes.strip_think import strip_think
from eijax.rewards.config import RewardConfig
from eijax.rewards.format_faults import turn_faults
from eijax.rewards.scores import axis_score, outcome_score, process_rewards, state_score
from eijax.rewards.training import penalties, training_reward
from eijax.scenarios.record import Anchors
from talks import make_answer, make_episode, make_scenario

# Anger 70 -> 40, worst 90; trust 30 -> 75, worst 5.
ANCHORS = make_scenario().anchors


@pytest.mark.parametrize(
    'anger, score',
    [(70, 0.0), (40, 1.0), (55, 0.5), (0, 1.0), (90, -1.0), (80, -0.5), (100, -1.0), (71, -0.05)],
)
def test_anger_score(anger, score):
  assert axis_score(anger, initial=70, target=40, worst=90) == pytest.approx(score)


@pytest.mark.parametrize(
    'trust, score', [(30, 0.0), (75, 1.0), (39, 0.2), (100, 1.0), (5, -1.0), (20, -0.4), (0, -1.0)]
)
def test_trust_score(trust, score):
  assert axis_score(trust, initial=30, target=75, worst=5) == pytest.approx(score)


def test_score_is_half_and_half():
  score = state_score(ANCHORS, EmotionState(anger=55, trust=20))
  assert (score.anger_score, score.trust_score, score.score) == pytest.approx((0.5, -0.4, 0.05))


@pytest.mark.parametrize('target, worst', [(70, 90), (75, 90), (40, 70), (40, 60)])
def test_ill_formed_anchors_are_refused(target, worst):
  with pytest.raises(ValueError, match='initial=70 must lie strictly between'):
    axis_score(50, initial=70, target=target, worst=worst)
  with pytest.raises(ValueError):
    state_score(
        Anchors(initial_anger=70, target_anger=target, worst_anger=worst, initial_trust=30, target_trust=75, worst_trust=5),
        EmotionState(anger=50, trust=50),
    )


def test_process_rewards_are_realised_changes():
  episode = make_episode(('a', -4, 6), ('b', 30, 0), ('c', 0, 0))
  # 0.5 * 4/100 + 0.5 * 6/100; anger +30 is clipped to +10.
  assert process_rewards(episode) == pytest.approx([0.05, -0.05, 0.0])
  assert process_rewards(make_episode()) == []


def finished(*raws, anger_delta=-3, trust_delta=0):
  """Each of the turns moves anger by anger_delta: two of -3 give 6/30 = 0.2, halved 0.1."""
  return make_episode(*[(raw, anger_delta, trust_delta) for raw in raws], max_rounds=len(raws))


def test_reward_of_a_clean_talk_is_its_score():
  episode = finished('<think>x</think>Hi.', '<think>x</think>Yes.')
  assert training_reward(episode, thinking=True) == pytest.approx(0.1) == outcome_score(episode).score
  assert training_reward(finished('Hi.', 'Yes.'), thinking=False) == pytest.approx(0.1)


def test_missing_thoughts_cost_their_share_where_thinking_is_on():
  episode = finished('<think>x</think>Hi.', 'Yes.')
  assert training_reward(episode, thinking=True) == pytest.approx(0.1 - 0.2 * 0.5)
  assert training_reward(episode, thinking=False) == pytest.approx(0.1)


@pytest.mark.parametrize('bad', ['<think></think>Yes.', '', 'Yes.</think>'])
def test_parse_penalty_is_paid_once_with_and_without_thinking(bad):
  assert training_reward(finished('Hi.', bad), thinking=False) == pytest.approx(0.1 - 0.05)
  # Both turns lack a thought, and both are malformed: 0.2 * 2/2 and 0.05 once.
  assert training_reward(finished(bad, bad), thinking=True) == pytest.approx(0.1 - 0.2 - 0.05)


def test_unclosed_thought_counts_as_missing_and_as_malformed():
  expected = {'missing_think': 0.1, 'parse': 0.05, 'format': 0.0}
  episode = finished('<think>x', '<think>x</think>Hi.')
  assert penalties(episode, thinking=True, cfg=RewardConfig()) == pytest.approx(expected)


def test_reward_is_clipped():
  worst = finished('', '', anger_delta=10, trust_delta=-10)
  # Anger 70 -> 90 is the worst, trust 30 -> 10 is -0.8: score -0.9, and 0.25 of penalties.
  assert outcome_score(worst).score == pytest.approx(-0.9)
  assert training_reward(worst, thinking=True) == -1.0


def test_weights_come_from_the_config():
  cfg = RewardConfig(missing_think_penalty=0.5, parse_penalty=0.1)
  assert training_reward(finished('Hi.', ''), thinking=True, cfg=cfg) == pytest.approx(0.1 - 0.5 - 0.1)
  with pytest.raises(ValueError, match='parse_penalty=-1'):
    RewardConfig(parse_penalty=-1)


def test_failed_talk_has_no_reward_and_open_one_no_score():
  failed = protocol.fail(make_episode(('Hi.', -3, 0)), 'simulator_failed', 'x')
  assert outcome_score(failed) is None and training_reward(failed, thinking=True) is None
  with pytest.raises(ValueError, match='still open'):
    outcome_score(make_episode())
  # The user may stop in the very first round.
  stopped = protocol.advance(make_episode(), strip_think('Hi.'), make_answer(-3, 0, stop=True))
  assert training_reward(stopped, thinking=False) == pytest.approx(0.05)


@pytest.mark.parametrize(
    'text, fault',
    [
        ('# Plan\nWe talk.', 'markdown'),
        ('Well:\n- one\n- two', 'markdown'),
        ('1. Breathe.\n2. Rest.', 'markdown'),
        ('This is **important**.', 'markdown'),
        ('```\nHi.\n```', 'markdown'),
        ('The user seems upset.', 'leaked_reasoning'),
        ('I should respond gently. Hi.', 'leaked_reasoning'),
        ('用户似乎很生气。', 'leaked_reasoning'),
        ('Hi.<|im_end|>', 'garbled'),
        ('Noooooooooooooooo.', 'garbled'),
        ('Hi \ufffd\ufffd.', 'garbled'),
    ],
)
def test_format_fault_is_named(text, fault):
  assert fault in turn_faults([strip_think(text)])[0]


@pytest.mark.parametrize(
    'text',
    ['I am sorry that I shouted.', 'It costs 3.50 - a lot. I should know...', '好的，我在。', 'A dash - here - and *one* star.',
     'On the 5. of May, at 7.', 'You said "never".', 'I need to answer for that night.'],
)
def test_plain_speech_has_no_fault(text):
  assert turn_faults([strip_think(text)]) == [()]


def test_two_in_a_row():
  cut = strip_think('And then I went to the', truncated=True)
  assert turn_faults([cut, strip_think('Yes.'), cut]) == [(), (), ()]
  assert turn_faults([cut, strip_think('and after that we')]) == [(), ('unfinished',)]
  one, two = 'I hear that the rain on Monday hurt you.', 'I hear that the rain on Friday hurt you.'
  assert turn_faults([strip_think(one), strip_think(two)])[1] == ('repeated',)
  assert turn_faults([strip_think(one), strip_think('What did she say when the door shut?')])[1] == ()


def test_format_penalty_and_veto_are_off_by_default():
  episode = finished('- one\n- two', 'Yes.')
  assert training_reward(episode, thinking=False) == pytest.approx(0.1)
  cfg = RewardConfig(format_penalty=0.3)
  assert training_reward(episode, thinking=False, cfg=cfg) == pytest.approx(0.1 - 0.3 / 2)
  assert training_reward(episode, thinking=False, cfg=RewardConfig(hard_veto=True)) == -1.0
  assert training_reward(finished('Hi.', 'Yes.'), thinking=False, cfg=RewardConfig(hard_veto=True)) == pytest.approx(0.1)
