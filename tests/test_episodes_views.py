"""What the policy sees: its role, house rules, visible replies; nothing of the user's inside."""

import json

import pytest

from eijax.episodes.views import house_rules, policy_messages, with_user_turn
from talks import make_episode

THOUGHT = '<think>my plan</think>I am here.'


def test_first_request_outside_charm_has_the_opening_line():
  messages = policy_messages(make_episode(), thinking=False)
  assert [m['role'] for m in messages] == ['system', 'user']
  assert messages[0]['content'] == 'You are Bo.\n\n' + house_rules('en', False)
  assert messages[1]['content'] == 'Hello?'


def test_charm_is_opened_from_the_system_prompt_alone():
  assert [m['role'] for m in policy_messages(make_episode(scene='charm'), thinking=False)] == ['system']
  later = policy_messages(make_episode(('Nice hat.', 0, 0), scene='charm'), thinking=False)
  assert [m['role'] for m in later] == ['system', 'assistant', 'user']


def test_history_holds_visible_replies_only():
  episode = make_episode((THOUGHT, -3, 2), ('Tell me.', 0, 0))
  messages = policy_messages(episode, thinking=True)
  assert [m['role'] for m in messages] == ['system', 'user', 'assistant', 'user', 'assistant', 'user']
  assert messages[2]['content'] == 'I am here.' and messages[3]['content'] == 'Go on.'
  assert 'my plan' not in json.dumps(messages)


def test_own_thoughts_are_shown_again_on_demand():
  kept = policy_messages(make_episode((THOUGHT, 0, 0)), thinking=True, keep_thoughts=True)
  assert kept[2]['content'] == '<think>\nmy plan\n</think>\n\nI am here.'


def test_nothing_of_the_user_leaks():
  episode = make_episode(('Hi.', -7, 4), appraisal=True)
  text = json.dumps(policy_messages(episode, thinking=True))
  assert 'You are Ann' not in text and 'dog' not in text and 'Hold her' not in text and '63' not in text


@pytest.mark.parametrize('thinking', [True, False])
def test_house_rules_are_short_and_ask_for_thoughts_only_with_thinking(thinking):
  english, chinese = (house_rules(language, thinking) for language in ('en', 'zh'))
  assert ('<think>' in english) == ('<think>' in chinese) == thinking
  assert len(english.split()) <= (40 if thinking else 25) and len(chinese) <= 80
  assert 'stage directions' in english and 'lists' in english
  with pytest.raises(ValueError, match="language='fr'"):
    house_rules('fr', thinking)


def test_placeholder_only_where_the_policy_opened():
  opened = policy_messages(make_episode(scene='charm'), thinking=False)
  assert [m['role'] for m in with_user_turn(opened)] == ['system', 'user']
  assert len(opened) == 1  # The talk itself is unchanged.
  later = policy_messages(make_episode(('Nice hat.', 0, 0), scene='charm'), thinking=False)
  assert [m['role'] for m in with_user_turn(later)] == ['system', 'user', 'assistant', 'user']
  other = policy_messages(make_episode(), thinking=False)
  assert with_user_turn(other) == other
  chinese = with_user_turn([{'role': 'system', 'content': '你叫李哲。'}])
  assert '开口' in chinese[1]['content']
