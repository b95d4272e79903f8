"""Scenario records: the published format, and one clear message for every broken rule."""

import json

import pytest

from eijax.errors import DataError
from eijax.scenarios.load import load_file, load_split, parse_record
from eijax.scenarios.record import SCENES, Anchors
from talks import make_record


def test_published_record_is_read_and_unknown_keys_are_kept():
  scenario = parse_record(make_record(theme='loss'), 'f:1')
  assert scenario.anchors == Anchors(
      initial_anger=70, initial_trust=30, target_anger=40, target_trust=75, worst_anger=90, worst_trust=5
  )
  assert scenario.opening_line == 'Hello?'
  assert scenario.appraisal is None
  assert scenario.extra['theme'] == 'loss'
  assert scenario.extra['strip_defender_strategy_ok'] is True
  assert scenario.extra['rub_goals'] == {'target_anger_range': [35, 45]}
  assert scenario.extra['worst_case'] == {'reason': 'cold'}
  assert scenario.extra['prompt'][0]['role'] == 'system'


def test_row_wrapper_is_removed():
  wrapped = parse_record({'row_idx': 3, 'row': make_record()}, 'f:1')
  assert wrapped.id == 'support-1' and wrapped.extra['row_idx'] == 3


@pytest.mark.parametrize('scene', SCENES)
def test_appraisal_is_parsed_with_what_its_scene_needs(scene):
  appraisal = parse_record(make_record(scene, appraisal=True), 'f:1').appraisal
  assert appraisal.facts[0].cues == ('dog died',)
  assert (appraisal.boundary is not None) == (scene == 'defense')
  assert (appraisal.amends is not None) == (scene == 'repair')


@pytest.mark.parametrize(
    'changes, field, value, rule',
    [
        ({'id': 7}, 'id', '7', 'non-empty text'),
        ({'id': None}, 'id', 'missing', 'non-empty text'),
        ({'scene_tag': 'Support'}, 'scene_tag', "'Support'", 'one of support, defense, repair, charm'),
        ({'aggressor_profile__opening_line': ' '}, 'aggressor_profile.opening_line', "' '", 'non-empty'),
        ({'aggressor_profile': 'Ann'}, 'aggressor_profile', "'Ann'", 'JSON object'),
        ({'success_criteria': 'She talks.'}, 'success_criteria', 'She talks', 'list of texts'),
        ({'must_avoid': [1]}, 'must_avoid', '[1]', 'list of texts'),
        ({'initial_calibration__initial_anger': True}, 'initial_calibration.initial_anger', 'True', 'integer'),
        ({'initial_calibration__initial_anger': '70'}, 'initial_calibration.initial_anger', "'70'", 'integer'),
        ({'rub_goals__target_trust': 75.5}, 'rub_goals.target_trust', '75.5', 'integer'),
        ({'worst_case__worst_anger_min': 120}, 'worst_case.worst_anger_min', '120', '0..100'),
        ({'worst_case__worst_trust_min': -5}, 'worst_case.worst_trust_min', '-5', '0..100'),
        ({'worst_case': None}, 'worst_case', 'missing', 'JSON object'),
        ({'rub_goals__target_anger': 70}, 'rub_goals.target_anger', '70', 'target_anger < initial_anger'),
        ({'worst_case__worst_anger_min': 70}, 'worst_case.worst_anger_min', '70', 'initial_anger < worst_anger'),
        ({'rub_goals__target_trust': 30}, 'rub_goals.target_trust', '30', 'initial_trust < target_trust'),
        ({'worst_case__worst_trust_min': 35}, 'worst_case.worst_trust_min', '35', 'worst_trust < initial_trust'),
    ],
)
def test_broken_field_names_place_field_value_and_rule(changes, field, value, rule):
  with pytest.raises(DataError) as error:
    parse_record(make_record(**changes), 'data/x.jsonl:12')
  message = str(error.value)
  assert message.startswith('data/x.jsonl:12: ')
  assert f'`{field}` = ' in message and value in message and rule in message
  assert '\n' not in message and '; ' in message


def test_values_off_the_grid_of_five_are_accepted():
  assert parse_record(make_record(rub_goals__target_anger=43), 'f:1').anchors.target_anger == 43


def test_charm_has_no_opening_line():
  assert parse_record(make_record('charm'), 'f:1').opening_line is None
  assert parse_record(make_record('charm', aggressor_profile__opening_line=''), 'f:1').opening_line is None
  with pytest.raises(DataError, match='opening_line'):
    parse_record(make_record('charm', aggressor_profile__opening_line='Hi'), 'f:1')


@pytest.mark.parametrize(
    'scene, change, pattern',
    [
        ('defense', lambda a: a.pop('yields'), r'appraisal.yields` = missing'),
        ('repair', lambda a: a.pop('amends'), r'appraisal.amends` = missing'),
        ('support', lambda a: a.update(boundary=a['facts'][0]), r'appraisal.boundary'),
        ('charm', lambda a: a.update(facts=[]), r'appraisal.facts` = \[\]'),
        ('charm', lambda a: a['needs'][0].update(cues=[]), r'appraisal.needs\[0\].cues'),
        ('charm', lambda a: a['needs'][0].update(cues=['a', '']), r'appraisal.needs\[0\].cues'),
        ('charm', lambda a: a['needs'][0].update(cue=['a']), r'appraisal.needs\[0\]'),
    ],
)
def test_broken_appraisal_is_named(scene, change, pattern):
  record = json.loads(json.dumps(make_record(scene, appraisal=True)))
  change(record['appraisal'])
  with pytest.raises(DataError, match=pattern):
    parse_record(record, 'f:1')


def write_split(folder, **records):
  (folder / 'test').mkdir(exist_ok=True)
  for scene in SCENES:
    rows = records.get(scene, [make_record(scene)])
    text = '\n\n'.join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / 'test' / f'{scene}_final.jsonl').write_text(text + '\n', encoding='utf-8')


def test_split_is_loaded_in_scene_order(tmp_path):
  write_split(tmp_path)
  assert [scenario.scene for scenario in load_split(tmp_path, 'test')] == list(SCENES)


def test_broken_json_names_line_and_column(tmp_path):
  write_split(tmp_path, charm=[make_record('charm'), '{"id": "x",, }'])
  with pytest.raises(DataError, match=r'charm_final.jsonl:3: column 12: broken JSON'):
    load_split(tmp_path, 'test')


def test_duplicate_id_names_both_places(tmp_path):
  write_split(tmp_path, defense=[make_record('defense', id='support-1')])
  with pytest.raises(DataError, match=r'defense_final.jsonl:1: field `id`.*support_final.jsonl:1'):
    load_split(tmp_path, 'test')


def test_record_in_the_wrong_file_is_refused(tmp_path):
  write_split(tmp_path, repair=[make_record('defense', id='d2')])
  with pytest.raises(DataError, match=r'repair_final.jsonl:1: field `scene_tag`'):
    load_split(tmp_path, 'test')


def test_missing_folder_file_and_empty_file(tmp_path):
  with pytest.raises(DataError, match='no such folder'):
    load_split(tmp_path / 'none', 'test')
  write_split(tmp_path)
  (tmp_path / 'test' / 'charm_final.jsonl').write_text('\n')
  with pytest.raises(DataError, match='holds no scenario'):
    load_split(tmp_path, 'test')
  (tmp_path / 'test' / 'charm_final.jsonl').unlink()
  with pytest.raises(DataError, match='charm_final.jsonl: cannot be read'):
    load_split(tmp_path, 'test')
  with pytest.raises(DataError, match="split='dev'"):
    load_split(tmp_path, 'dev')


def test_language_follows_the_persona():
  zh = make_record(aggressor_profile__system_prompt='### 背景\n你叫小林，住在 Berlin。')
  assert parse_record(zh, 'f:1').language == 'zh'
  assert parse_record(make_record(), 'f:1').language == 'en'


def test_load_file_keeps_file_order(tmp_path):
  path = tmp_path / 'mixed.jsonl'
  path.write_text('\n'.join(json.dumps(make_record(scene)) for scene in ('charm', 'support')))
  assert [scenario.scene for scenario in load_file(path)] == ['charm', 'support']
