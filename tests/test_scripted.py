"""Scripted defenders, and property 14: the calibration of the embedded simulator over them."""

import dataclasses
import pathlib
import random

import numpy as np
import pytest
import simulator_cards as cards

from eijax.episodes import protocol
from eijax.rewards.scores import outcome_score
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES
from eijax.scripted import sheet_facts
from eijax.scripted.defenders import PANEL, SKILLED_SHEET, ScriptedDefender, get
from eijax.scripted.play import play
from eijax.simulator.embedded import EmbeddedSimulator

DATA = pathlib.Path(__file__).parent.parent / 'scenario_data'
# Expected means x100, as (low, high).
BANDS = {
  'skilled': (40, 100),
  'decent': (5, 35),
  'polite_generic': (-35, -10),
  'over_apologiser': (-100, -25),
  'lecturer': (-100, -25),
  'list_maker': (-100, -25),
  'yielder': (-100, -25),
  'hostile': (-100, -60),
  'silent': (-100, -60),
  'fact_bag': (-100, -60),
}


@pytest.fixture(scope='module', params=['test', 'train'])
def panel(request):
  """Mean score x100 per defender and scene, over a part of the split that has all scenes."""
  scenarios = load_split(DATA, request.param)[:: {'test': 3, 'train': 25}[request.param]]
  answer = EmbeddedSimulator(0).answer
  return {
    name: {
      scene: 100
      * np.mean(
        [
          outcome_score(play(scenario, defender, answer, seed=0)).score
          for scenario in scenarios
          if scenario.scene == scene
        ]
      )
      for scene in SCENES
    }
    for name, defender in PANEL.items()
  }


def test_14_every_defender_lies_in_its_band(panel):
  for name, (low, high) in BANDS.items():
    assert low <= np.mean(list(panel[name].values())) <= high, (name, panel[name])


def test_14_the_order_is_the_same_in_every_scene(panel):
  """But for the yielder in Defense: giving the boundary away is that scene's own failure."""
  ranks = (
    'skilled',
    'decent',
    'polite_generic',
    'yielder',
    'over_apologiser',
    'lecturer',
    'list_maker',
    'silent',
    'fact_bag',
    'hostile',
  )
  for scene in SCENES:
    values = [
      panel[name][scene] for name in ranks if not (name == 'yielder' and scene == 'defense')
    ]
    # Neighbours may touch: the samples are small, and the three worst lie near the floor.
    assert all(left > right - 8 for left, right in zip(values, values[1:])), (scene, values)


def test_stuffing_and_memorised_lines_score_below_zero():
  answer = EmbeddedSimulator(0).answer
  scenarios = load_split(DATA, 'test')[::4]
  lines = {
    'bag': lambda episode: ', '.join(fact.cues[0] for fact in episode.scenario.appraisal.facts),
    'sheet': lambda episode: ' '.join(
      f'{bullet}.' for bullet in sheet_facts.bullets(episode.scenario.defender_prompt)
    ),
    'one line': lambda episode: (
      'No wonder that it hurts. I was wrong, I will not do it again, and I will come tomorrow at nine with soup.'
    ),
    'one question': lambda episode: 'What was the worst of it for you, and what happened then?',
    'one fact': lambda episode: (
      f'{sheet_facts.bullets(episode.scenario.defender_prompt)[0]}. That matters to me.'
    ),
  }
  for name, line in lines.items():
    defender = ScriptedDefender(
      name=name, about='', reply_fn=lambda episode, rng, line=line: line(episode)
    )
    for scene in SCENES:
      scores = [
        outcome_score(play(scenario, defender, answer, seed=0)).score
        for scenario in scenarios
        if scenario.scene == scene
      ]
      assert np.mean(scores) < -0.1, (name, scene)


@pytest.mark.parametrize('name', [*PANEL, SKILLED_SHEET.name])
@pytest.mark.parametrize('scene', tuple(cards.CARDS))
def test_replies_are_seeded_varied_and_spoken(name, scene):
  defender = get(name)
  episode = protocol.start(cards.CARDS[scene], max_rounds=8, seed=0)
  lines = [defender.reply(episode, random.Random(seed)) for seed in range(30)]
  assert lines == [defender.reply(episode, random.Random(seed)) for seed in range(30)]
  if name in ('silent', 'fact_bag'):
    return
  assert len(set(lines)) >= 4
  assert all(3 <= len(line.split()) <= 45 for line in lines)
  assert not any('{' in line or '}' in line for line in lines)


def test_no_line_comes_twice_in_a_talk_while_there_is_another():
  for name in ('skilled', 'decent', 'polite_generic', 'lecturer', 'hostile'):
    episode = play(cards.SUPPORT, get(name), EmbeddedSimulator(0).answer, seed=1)
    said = [turn.reply.visible for turn in episode.turns]
    assert len(set(said)) >= len(said) - 1, said


def test_only_skilled_and_the_yielder_read_the_appraisal():
  """The others say the same without one."""
  for name in PANEL:
    if name in ('skilled', 'yielder'):
      continue
    for card in cards.CARDS.values():
      with_it = get(name).reply(protocol.start(card, max_rounds=8, seed=0), random.Random(2))
      without = get(name).reply(
        protocol.start(dataclasses.replace(card, appraisal=None), max_rounds=8, seed=0),
        random.Random(2),
      )
      assert with_it == without


def _sheet_of_two(facts: str):
  sheet = (
    '### Background\nYou are Ana, and Rui is your brother. He is angry.\n### Role and stance\nHe wants the boat.\n### Known facts\n'
    + facts
  )
  return cards.scenario('repair', '### Background\nYou are Rui, 40.', 'Well?', sheet, None)


def test_facts_are_spoken_in_the_defenders_voice():
  card = _sheet_of_two(
    '- Boat stands in your yard since May.\n- Rui signed the paper with you.\n- His engine was sold by you in June.\n- Your aunt told you "you are late".\n'
  )
  assert sheet_facts.spoken(card) == (
    'Boat stands in my yard since May',
    'You signed the paper with me',
    'Your engine was sold by me in June',
    'My aunt told me "you are late"',
  )


def test_facts_that_need_no_change_are_preferred():
  plain = ('Harbour fees rise in June', 'Paint, blue, is left for one side', 'Boat has stood in the yard since May')
  card = _sheet_of_two('\n'.join(f'- {fact}.' for fact in (plain[0], 'Rui signed the paper', *plain[1:])))
  assert sheet_facts.spoken(card) == plain


def test_a_sheet_in_the_own_voice_is_said_as_it_stands():
  facts = ('Boat stands in my yard since May', 'Rui signed it before you saw it')
  assert sheet_facts.spoken(_sheet_of_two('\n'.join(f'- {fact}' for fact in facts))) == facts


def test_a_sheet_without_bullets_gives_its_sentences():
  card = _sheet_of_two('The boat stands in the yard. Nobody paid the fee.')
  assert 'Nobody paid the fee' in sheet_facts.bullets(card.defender_prompt)


def test_unknown_defender_lists_the_known_ones():
  with pytest.raises(ValueError, match='skilled, decent'):
    get('nobody')
