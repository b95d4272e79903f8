"""Situation cards: what the reader refuses, and what the builder makes of them."""

import json

import pytest
import yaml
from card_files import SPLITS_AND_SCENES, make_card, write_card, write_cards, write_counts

from eijax.curation import sections
from eijax.errors import DataError
from eijax.scenarios import build
from eijax.scenarios.cards import load_card, load_cards
from eijax.scenarios.load import load_split, parse_record
from eijax.scenarios.record import SCENES


def _load(folder, card, scene='support'):
  return load_card(write_card(folder, card), 'train', scene)


def _change(card, path, value):
  """Set a nested value; the path's numbers index lists; None removes."""
  *parents, last = path
  target = card
  for step in parents:
    target = target[step]
  if value is None:
    del target[last]
  else:
    target[last] = value


@pytest.mark.parametrize(
  'path, value, field, rule',
  [
    (('card',), 'other', '`card`', "name of the file, 'lost-dog'"),
    (('scene',), 'charm', '`scene`', "must be 'support'"),
    (('theme',), '  ', '`theme`', 'non-empty text'),
    (('flags',), ['sad'], '`flags`', 'self-harm'),
    (('themes',), 'loss', '`themes`', 'no such key'),
    (('tempers',), [], '`tempers`', 'non-empty list'),
    (('tempers', 1, 'logic'), None, '`tempers[1].logic`', 'non-empty text'),
    (('tempers', 0, 'mood'), 'x', '`tempers[0].mood`', 'no such key'),
    (('needs',), 'to be heard', '`needs`', 'phrase | cue'),
    (('soothes',), 'a phrase | / /', '`soothes`', 'phrase | cue'),
    (('anchors',), '70 30', '`anchors`', 'ANGER TRUST'),
    (('anchors',), '72 30 -> 40 75 | 90 5', '`anchors`', 'multiples of 5'),
    (('anchors',), '70 30 -> 70 75 | 90 5', '`anchors`', 'target anger < start'),
    (('variants', 1, 'facts'), 'Only a sentence.', '`variants[1].facts`', 'sentence | phrase | cue'),
    (('variants', 0, 'sheet'), 'text', '`variants[0].sheet`', 'mapping'),
    (('variants', 0, 'sheet', 'goal'), None, '`variants[0].sheet.goal`', 'non-empty text'),
    (('variants', 0, 'angles', 0, 'cast'), {'user': 'Ana'}, '`variants[0].angles[0].cast`', 'user, other and place'),
    (('variants', 0, 'angles', 0, 'cast', 'user'), 7, '`variants[0].angles[0].cast`', 'names to texts'),
    (('variants', 0, 'angles', 1, 'opening'), None, '`variants[0].angles[1].opening`', 'non-empty text'),
    (('variants', 0, 'angles', 1, 'tried'), 'A. | a | a\nB. | b | b', '`variants[0].angles[1].tried`', 'single line'),
    (('variants', 0, 'angles', 1, 'anchors'), '5 5 -> 0 5 | 10 0', '`variants[0].angles[1].anchors`', 'start < target trust'),
  ],
)  # fmt: skip
def test_a_broken_card_is_named_by_file_field_value_and_rule(tmp_path, path, value, field, rule):
  card = make_card()
  _change(card, path, value)
  path = tmp_path / 'lost-dog.yaml'
  path.write_text(yaml.safe_dump(card))
  with pytest.raises(DataError) as caught:
    load_card(path, 'train', 'support')
  message = str(caught.value)
  assert 'lost-dog.yaml' in message and field in message and rule in message


def test_what_is_no_yaml_is_named_by_file(tmp_path):
  path = tmp_path / 'lost-dog.yaml'
  path.write_text('card: [')
  with pytest.raises(DataError, match='lost-dog.yaml: is not YAML'):
    load_card(path, 'train', 'support')


def test_a_charm_card_has_no_opening_and_other_scenes_need_their_own_keys(tmp_path):
  card = make_card(scene='charm')
  card['variants'][0]['angles'][0]['opening'] = 'Hello.'
  with pytest.raises(DataError, match='the partner opens'):
    _load(tmp_path, card, 'charm')
  card = make_card(scene='repair')
  del card['variants'][0]['amends']
  with pytest.raises(DataError, match=r'`variants\[0\].amends`'):
    _load(tmp_path, card, 'repair')


def test_two_cards_of_one_name_are_refused(tmp_path):
  write_card(tmp_path, make_card(), 'train')
  write_card(tmp_path, make_card(), 'test')
  with pytest.raises(DataError, match='not unique'):
    load_cards(tmp_path)


@pytest.mark.parametrize('scene', SCENES)
def test_expanded_records_are_complete_and_filled(tmp_path, scene):
  records = build.expand(_load(tmp_path, make_card(scene=scene), scene))
  assert len(records) == 4 and len({record['id'] for record in records}) == 4
  for record in records:
    scenario = parse_record(record, 'built')
    assert '{' not in json.dumps(list(_texts(record)))
    assert not sections.missing_sections(scenario.aggressor_prompt, sections.AGGRESSOR)
    assert not sections.missing_sections(scenario.defender_prompt, sections.DEFENDER)
    assert len(sections.facts(scenario.defender_prompt)) == 6
    assert len(sections.facts(scenario.aggressor_prompt)) == build.NUM_TOLD_FACTS + 2
    assert len(scenario.appraisal.facts) == 12
  # The first angles of all variants come first, and each angle has a temper and anchors of its own.
  assert [record['variant'] for record in records] == ['v0', 'v1', 'v0', 'v1']
  assert records[0]['temper'] != records[2]['temper']
  assert [record['initial_calibration']['initial_anger'] for record in records] == [70, 70, 65, 65]


def _texts(value):
  if isinstance(value, str):
    yield value
  elif isinstance(value, dict):
    for inner in value.values():
      yield from _texts(inner)
  elif isinstance(value, list):
    for inner in value:
      yield from _texts(inner)


def test_names_come_from_the_cast_of_the_angle(tmp_path):
  first, _, second, _ = build.expand(_load(tmp_path, make_card()))
  sheet = first['aggressor_profile']['system_prompt']
  assert 'You are Ana00 Ruiz, 40' in sheet and 'Ana00 is what Bo00 calls you' in sheet
  assert first['aggressor_profile']['opening_line'] == 'lost-dog 0 0 is gone, Bo00.'
  assert 'Town01' in second['aggressor_profile']['system_prompt'] and 'Town00' not in json.dumps(second)
  # Cues are compared with lower-case stems.
  assert 'bo00 fact0' in first['appraisal']['facts'][0]['cues']


def test_told_facts_differ_between_the_angles_and_between_variants(tmp_path):
  card = _load(tmp_path, make_card(num_variants=2, num_angles=3))
  told = {
    (number, depth): build.told_facts(variant, number, depth)
    for number, variant in enumerate(card.variants) for depth in range(3)
  }
  assert all(len(facts) == build.NUM_TOLD_FACTS for facts in told.values())
  for number in range(2):
    kept = [{fact.sentence for fact in told[number, depth]} for depth in range(3)]
    assert len({frozenset(facts) for facts in kept}) == 3
    # What one angle holds back another one tells.
    assert set.union(*kept) == {fact.sentence for fact in card.variants[number].facts}


def test_the_same_cards_give_the_same_bytes(tmp_path):
  cards = write_cards(tmp_path / 'cards')
  for name in ('one', 'two'):
    build.write(build.build(cards), tmp_path / name)
  for split, scene in SPLITS_AND_SCENES:
    one, two = ((tmp_path / name / split / f'{scene}_final.jsonl').read_bytes() for name in ('one', 'two'))
    assert one == two and one.endswith(b'}\n')
  assert len(load_split(tmp_path / 'one', 'train')) == 12


def test_counts_are_met_evenly_over_the_cards(tmp_path):
  cards = write_cards(tmp_path, count=5)
  for records in build.build(cards).values():
    assert len(records) == 5
    by_card = [record['card'] for record in records]
    # Of two cards with four scenarios each the last one gives one more away.
    assert sorted(map(by_card.count, set(by_card))) == [2, 3] and by_card.count(by_card[0]) == 3


def test_whole_records_come_first_and_count(tmp_path):
  cards = write_cards(tmp_path, count=3)
  whole = build.expand(_load(tmp_path / 'elsewhere', make_card('written-whole')))[:1]
  path = cards / 'whole' / 'train' / 'support.jsonl'
  path.parent.mkdir(parents=True)
  path.write_text(json.dumps(whole[0]) + '\n')
  built = build.build(cards)['train', 'support']
  assert built[0] == whole[0] and len(built) == 3


def test_too_few_scenarios_and_missing_counts_are_errors(tmp_path):
  cards = write_cards(tmp_path, count=3)
  write_counts(cards, 9)
  with pytest.raises(DataError, match='train/support: the cards give 8 scenarios, 9 are asked for'):
    build.build(cards)
  (cards / 'set.yaml').unlink()
  with pytest.raises(DataError, match='set.yaml: must hold `counts`'):
    build.build(cards)
