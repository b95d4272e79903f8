"""A script reads a talk from its messages alone, and says what it would say if it knew all of it."""

import random

import pytest

from eijax.episodes.views import policy_messages, with_user_turn
from eijax.errors import UsageError
from eijax.rollouts.ports import ReplyRequest
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES
from eijax.scenarios.shipped import shipped_folder
from eijax.scripted.defenders import get
from eijax.scripted.play import play
from eijax.scripted.policy import Script, ScriptedPolicy, UnknownTalkError
from eijax.simulator.embedded import EmbeddedSimulator
from talks import make_scenario

SET = load_split(shipped_folder(), 'test')
FIRST = [next(scenario for scenario in SET if scenario.scene == scene) for scene in SCENES]


@pytest.mark.parametrize('scenario', FIRST, ids=SCENES)
@pytest.mark.parametrize('name', ['skilled', 'decent', 'yielder', 'fact_bag'])
def test_messages_are_enough(scenario, name):
  script = Script(name, SET)
  episode = play(scenario, get(name), EmbeddedSimulator(0).answer, seed=3, max_rounds=3)
  for thinking in (False, True):
    messages = policy_messages(episode, thinking=thinking)
    for sent in (messages, with_user_turn(messages)):
      assert script.answer(sent, 7) == get(name).reply(episode, random.Random(f'7|{name}'))


def test_a_shared_sheet_is_told_apart_by_the_first_line():
  twins = [make_scenario(id='a', defender_profile__system_prompt='You are Bo. Facts: a.'),
           make_scenario('charm', id='b', defender_profile__system_prompt='You are Bo. Facts: a.')]
  script = Script('decent', twins)
  system = {'role': 'system', 'content': 'You are Bo. Facts: a.'}
  find = lambda *texts: script._episode([system, *texts]).scenario.id  # pylint: disable=protected-access
  assert find({'role': 'user', 'content': 'Hello?'}) == 'a'
  assert find() == 'b' == find({'role': 'user', 'content': '(You speak first.)'}) == find({'role': 'assistant', 'content': 'Hi.'})


def test_what_it_cannot_play_is_said():
  script = Script('decent', SET)
  with pytest.raises(UnknownTalkError, match='is the sheet of none of the scenarios'):
    script.answer([{'role': 'system', 'content': 'You are a bank.'}], 0)
  for broken in ([], [{'role': 'user', 'content': 'Hi.'}], [{'role': 'system', 'content': None}]):
    with pytest.raises(UnknownTalkError, match='must begin with a system message'):
      script.answer(broken, 0)
  with pytest.raises(UsageError, match="'nobody' is unknown"):
    Script('nobody', SET)


def test_replies_depend_on_talk_and_seed_alone():
  policy = ScriptedPolicy(Script('decent', SET))
  episode = play(FIRST[0], get('decent'), EmbeddedSimulator(0).answer, seed=1, max_rounds=2)
  request = lambda key, seed: ReplyRequest(episode_key=key, messages=policy_messages(episode, thinking=False), seed=seed, round=3)
  one, two = (future.result().text for future in policy.submit([request('x', 5), request('y', 5)]))
  others = {future.result().text for future in policy.submit([request('x', seed) for seed in range(6, 20)])}
  assert one == two and len(others) > 3
