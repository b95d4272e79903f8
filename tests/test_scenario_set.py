"""The scenarios that ship: built from the cards, sound, many and all different."""

import functools
import json
import pathlib
import re

import pytest
import yaml

from eijax.curation import build as build_command
from eijax.curation import sections, similarity, validate
from eijax.scenarios import build, order
from eijax.scenarios.cards import CONTENT_FLAGS
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES, SPLITS

FOLDER = pathlib.Path(__file__).resolve().parent.parent / 'scenario_data'
COUNTS = {'train': 2009, 'test': 213}


@functools.cache
def _scenarios(split):
  return load_split(FOLDER, split)


@functools.cache
def _everything():
  return tuple(scenario for split in SPLITS for scenario in _scenarios(split))


def _values(key, scenarios):
  return {scenario.extra[key] for scenario in scenarios}


@pytest.mark.slow
def test_the_cards_give_the_committed_files_byte_for_byte():
  build_command.compare(build.build(FOLDER / 'cards'), FOLDER)


@pytest.mark.parametrize('split', SPLITS)
def test_counts_are_those_of_the_paper_and_near_even_over_scenes(split):
  scenarios = _scenarios(split)
  assert len(scenarios) == COUNTS[split]
  sizes = [sum(scenario.scene == scene for scenario in scenarios) for scene in SCENES]
  assert max(sizes) - min(sizes) <= 1
  asked = yaml.safe_load((FOLDER / 'cards' / 'set.yaml').read_text())['counts'][split]
  assert asked == dict(zip(SCENES, sizes))


def test_every_check_of_validate_passes():
  checks = validate.check_set(FOLDER, strict=True)
  assert not [violation.text for check in checks for violation in check.violations]


def test_there_are_enough_situations_and_themes_and_some_are_test_only():
  situations = {split: _values('situation', _scenarios(split)) for split in SPLITS}
  assert len(situations['train'] | situations['test']) >= 165
  assert len(_values('theme', _everything())) >= 23
  assert len(situations['test'] - situations['train']) >= 25


def test_no_card_is_in_both_splits():
  cards = {split: {scenario.extra.get('card') for scenario in _scenarios(split)} - {None} for split in SPLITS}
  assert cards['train'] and cards['test'] and not cards['train'] & cards['test']


def test_no_placeholder_or_typing_slip_is_left():
  slips = re.compile(r'\{|\}|  +(?=\S)| [,.;:?!](?!\.)|\bTODO\b')
  for scenario in _everything():
    assert not re.search(r'[{}]', json.dumps(_texts(scenario))), scenario.id
    assert not slips.search(scenario.opening_line or ''), (scenario.id, scenario.opening_line)
    assert not slips.search(scenario.title), (scenario.id, scenario.title)


def _texts(scenario):
  appraisal = scenario.appraisal
  cues = [
    cue
    for name in ('facts', 'needs', 'soothes', 'inflames', 'boundary', 'holds', 'yields', 'way_out', 'act', 'effect', 'amends')
    if (value := getattr(appraisal, name))
    for cue in (value if isinstance(value, tuple) else (value,))
  ]
  return [
    scenario.title, scenario.aggressor_prompt, scenario.opening_line, scenario.defender_prompt, scenario.goal,
    scenario.success_criteria, scenario.must_avoid, [[cue.text, cue.cues] for cue in cues],
    [scenario.extra[key] for key in ('theme', 'situation', 'relationship', 'setting')],
  ]  # fmt: skip


def test_every_partner_knows_six_facts_and_every_user_more():
  for scenario in _everything():
    assert len(sections.facts(scenario.defender_prompt)) == 6, scenario.id
    assert len(sections.facts(scenario.aggressor_prompt)) > 6, scenario.id


def test_sheets_have_a_length_that_a_model_reads():
  for scenario in _everything():
    assert 200 <= len(scenario.aggressor_prompt.split()) <= 520, scenario.id
    assert 70 <= len(scenario.defender_prompt.split()) <= 200, scenario.id


def test_openings_are_short_spoken_and_begin_differently():
  openings = [scenario.opening_line for scenario in _everything() if scenario.opening_line]
  assert all(3 <= len(similarity.tokens(opening)) <= 45 and '\n' not in opening for opening in openings)
  begins = [tuple(similarity.tokens(opening)[:5]) for opening in openings]
  # Five words: "I don't know what" begins many true sentences.
  assert len(set(begins)) == len(begins)


def test_risky_content_is_flagged_with_known_flags_in_both_splits():
  for split in SPLITS:
    flagged = {flag for scenario in _scenarios(split) for flag in scenario.extra['content_flags']}
    assert flagged and flagged <= set(CONTENT_FLAGS)


def test_steps_of_training_take_every_scene_evenly():
  scenes = [scenario.scene for scenario in order.step_scenarios(_scenarios('train'), 5, 16, 0)]
  assert sorted(map(scenes.count, SCENES)) == [4, 4, 4, 4]


def test_the_data_card_has_no_gap_and_gives_the_true_counts():
  text = (FOLDER / 'README.md').read_text(encoding='utf-8')
  assert '{{' not in text
  for number in COUNTS.values():
    assert f'{number:,}' in text
  assert 'CC BY 4.0' in text and 'not comparable' in text
