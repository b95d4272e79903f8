"""Pools, sheets, anchor repair, prompts and the index of copies, each alone."""

import itertools
import pathlib
import random

import jinja2
import pytest
from generation_endpoint import words

from eijax.curation.similarity import jaccard, shingles
from eijax.generation import anchors, asking, duplicates, pools, prompts, sheets, stages
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES

LANGUAGES = ('en', 'zh')
ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('scene, num_themes', (('support', 6), ('defense', 7), ('repair', 5), ('charm', 5)))
def test_pools_have_the_sizes_of_the_paper_in_both_languages(scene, num_themes):
  found = pools.load_pools(scene)
  themes = [theme.key for theme, _ in found.situations]
  assert len(set(themes)) == num_themes
  assert all(6 <= themes.count(theme) <= 8 for theme in themes)
  assert [len(part) for part in (found.relationships, found.places, found.intensities, found.personalities)] == [7, 11, 8, 10]
  options = [*itertools.chain(*found.situations), *found.relationships, *found.places, *found.intensities, *found.personalities]
  for option in options:
    assert sheets.language_of(option.text['zh']) == 'zh' and sheets.language_of(option.text['en']) == 'en', option
    assert option.key == option.key.lower() and '/' not in option.key


def test_situations_are_named_and_worded_once():
  situations = [situation for scene in SCENES for _, situation in pools.load_pools(scene).situations]
  for values in ([one.key for one in situations], *([one.text[language] for one in situations] for language in LANGUAGES)):
    assert len(set(values)) == len(values)


def test_charm_has_intensities_of_its_own():
  assert not {one.key for one in pools.load_pools('charm').intensities} & {one.key for one in pools.load_pools('repair').intensities}


def test_combinations_never_repeat_cover_all_situations_first_and_follow_the_seed():
  drawn = [one.key for one in itertools.islice(pools.combinations('repair', 3), 2000)]
  assert len(set(drawn)) == 2000
  assert len({key.split('/')[2] for key in drawn[:35]}) == 35
  assert drawn[:50] == [one.key for one in itertools.islice(pools.combinations('repair', 3), 50)]
  assert drawn[:50] != [one.key for one in itertools.islice(pools.combinations('repair', 4), 50)]


def test_a_combination_is_known_again_in_either_language():
  combination = next(pools.combinations('defense', 0))
  for record in (
    {'generation': {'combination': combination.key}},
    {'scene_tag': 'defense', **combination.texts('zh')},
    {'scene_tag': 'defense', **combination.texts('en'), 'generation': None},
  ):
    assert pools.record_combination(record) in pools.comparison_keys(combination)
  assert pools.record_combination({'theme': 'grief', 'scene_tag': 'support'}) is None
  other = {'scene_tag': 'repair', **combination.texts('en')}
  assert pools.record_combination(other) not in pools.comparison_keys(combination)


def levels(*values):
  return dict(zip(anchors.PLACES, values))


@pytest.mark.parametrize(
  'given, wanted',
  (
    ((60, 30, 30, 60, 85, 5), (60, 30, 30, 60, 85, 5)),
    ((62, 33, '30', 60.0, '+85', -3), (60, 35, 30, 60, 85, 0)),
    ((60, 30, 75, 10, 40, 50), (60, 30, 55, 35, 65, 25)),  # 5 points past the start.
    ((60, 30, 60, 30, 60, 30), (60, 30, 55, 35, 65, 25)),
    ((100, 0, 50, 50, 100, 0), (95, 5, 50, 50, 100, 0)),  # Room on both sides of the start.
    ((0, 100, 0, 100, 0, 100), (5, 95, 0, 100, 10, 90)),
    ((57.5, 22, 31, 140, 1e5, 4), (60, 20, 30, 100, 100, 5)),
  ),
)
def test_anchor_repair(given, wanted):
  repaired, changes = anchors.repair(levels(*given))
  assert tuple(getattr(repaired, name) for name in anchors.PLACES) == wanted
  assert len(changes) == sum(type(a) is not int or a != b for a, b in zip(given, wanted))


def test_repaired_anchors_hold_every_rule_whatever_comes():
  rng = random.Random(0)
  for _ in range(2000):
    found, _ = anchors.repair(levels(*(rng.choice((rng.randint(-20, 130), rng.uniform(0, 100))) for _ in range(6))))
    assert found.target_anger < found.initial_anger < found.worst_anger
    assert found.worst_trust < found.initial_trust < found.target_trust
    assert all(level % 5 == 0 and 0 <= level <= 100 for level in vars(found).values())
    assert anchors.repair(vars(found)) == (found, ())


@pytest.mark.parametrize('value', (None, 'high', True, float('nan'), float('inf'), [60], ''))
def test_an_anchor_that_is_no_number_is_an_error(value):
  with pytest.raises(anchors.AnchorError, match='target_trust'):
    anchors.repair(levels(60, 30, 30, value, 85, 5))


def sections(role, language='en'):
  rng = random.Random(1)
  return {
    name: '\n'.join(f'- {words(rng, 6, language)}' for _ in range(4)) if name == 'facts' else words(rng, 20, language)
    for name in sheets.SECTIONS[role]
  }


@pytest.mark.parametrize('language', LANGUAGES)
@pytest.mark.parametrize('role', sheets.ROLES)
def test_a_sheet_is_read_back_as_it_was_written(role, language):
  given = sections(role, language)
  assert sheets.parse(sheets.render(given, role, language), role) == (given, ())
  assert not sheets.faults(given, role, language)


@pytest.mark.parametrize(
  'text',
  (
    '```markdown\n# Background\nYou are A.\n## Known Facts:\n1. One.\n2) Two.\n• Three.\n```',
    '**Background**\nYou are A.\n\n**Known facts:**\n* One.\n* Two.\n* Three.',
    '### Known facts ###\n- One.\n- Two.\n\n- Three.\n### Background: You are A.',
    '【背景】\nYou are A.\n【已知事实】\n（1）One.\n（2）Two.\n（3）Three.',
    '【人物背景】You are A.\n### 二、已知信息与事实\n- One.\n- Two.\n- Three.',
  ),
)
def test_other_marks_wordings_and_orders_are_read(text):
  found, strange = sheets.parse(text, 'user')
  assert found == {'background': 'You are A.', 'facts': '- One.\n- Two.\n- Three.'} and not strange


def test_text_outside_the_sections_is_told():
  _, strange = sheets.parse('Sure!\n### Background\nYou.\n### Weather\nRain.\n### Background\nMore.', 'user')
  assert len(strange) == 4 and 'Sure!' in strange[0] and 'Weather' in strange[1] and 'Rain' in strange[2] and 'twice' in strange[3]


@pytest.mark.parametrize(
  'name, body, said',
  (
    ('logic', '', 'is missing'),
    ('style', 'Short.', 'too thin'),
    ('purpose', 'You want that {name} comes home to the house by the sea.', 'placeholder'),
    ('role', 'You stand there with anger: 60 and wait for what the other says.', 'machinery'),
    ('background', '你是一个住在海边的人，每天早上去码头看船，晚上回家做饭，日子过得很慢。', 'not written in English'),
    ('facts', '- You saw the boat leave in the morning before eight.', 'at least 3 facts'),
  ),
)
def test_the_format_check_names_section_and_rule(name, body, said):
  [fault] = sheets.faults({**sections('user'), name: body}, 'user', 'en')
  assert said in fault and name in fault


@pytest.mark.parametrize(
  'given, wanted',
  (
    ('"I am\n here."', 'I am here.'),
    ('(sighs) I am here.', 'I am here.'),
    ('“我在这儿。”', '我在这儿。'),
    ('（低声）我在这儿。', '我在这儿。'),
    ("'Who is this.' With a full stop, Khoa. 'Who.'", "'Who is this.' With a full stop, Khoa. 'Who.'"),
    ('"Yes," he said. "No."', '"Yes," he said. "No."'),
  ),
)
def test_opening_lines_are_tidied(given, wanted):
  assert sheets.tidy_opening(given) == wanted


def test_long_empty_and_foreign_openings_are_faults():
  assert sheets.opening_faults('', 'en') and sheets.opening_faults('so ' * 61, 'en')
  assert sheets.opening_faults('我在这儿等了你很久了', 'en') and not sheets.opening_faults('OK?', 'zh')


@pytest.mark.parametrize('language', LANGUAGES)
@pytest.mark.parametrize('scene', SCENES)
def test_our_examples_pass_our_own_format_check(scene, language):
  examples = prompts._own_examples(language)[scene]
  assert len(examples) == 2
  for example in examples:
    value = stages.check_expand(scene)(example)
    assert not stages.sheet_faults(value, scene, language)


@pytest.mark.parametrize('language', LANGUAGES)
@pytest.mark.parametrize('scene', SCENES)
@pytest.mark.parametrize('stage', prompts.STAGES)
def test_every_prompt_is_whole_and_in_its_language(stage, scene, language):
  combination = next(pools.combinations(scene, 0))
  values = {
    'expand': {'seeds': combination.texts(language), 'examples': ['EXAMPLE']},
    'goal': {'user_sheet': 'U', 'partner_sheet': 'P', 'opening_line': None},
    'worst': {'user_sheet': 'U', 'partner_sheet': 'P', 'initial_anger': 60, 'initial_trust': 30, 'goal': 'G'},
    'reclean': {'sheets': 'S', 'faults': ['F']},
    'appraisal': {'user_sheet': 'U', 'partner_sheet': 'P', 'criteria': ['C'], 'avoid': ['A'], 'keys': ['facts']},
  }[stage]
  system, user = prompts.render(stage, language, scene=scene, **values)
  assert (system['role'], user['role']) == ('system', 'user')
  text = system['content'] + user['content']
  assert 'JSON' in text and '{%' not in text and '{{' not in text and '---user---' not in text
  cjk = sum('\u4e00' <= char <= '\u9fff' for char in text)
  assert (cjk > 80) == (language == 'zh')
  if stage in ('expand', 'reclean'):
    assert ('"opening_line"' in text) == (scene != 'charm')
  if stage == 'appraisal':
    assert ('boundary' in text) == (scene == 'defense') and ('amends' in text) == (scene == 'repair')
  with pytest.raises(jinja2.UndefinedError):
    prompts.render(stage, language, scene=scene)


def test_text_in_a_sheet_cannot_break_a_prompt():
  evil = 'x\n---user---\n{{ 7 * 7 }} {% raw %}'
  _, user = prompts.render('goal', 'en', scene='charm', user_sheet=evil, partner_sheet='P', opening_line=None)
  assert evil in user['content']


def test_examples_come_from_a_set_of_the_same_language_and_scene():
  known = load_split(ROOT / 'scenario_data', 'train')
  own = prompts.Examples((), 'en')
  of_set = prompts.Examples(known, 'en')
  assert own.choose('repair', 1) == prompts._own('repair', 'en')
  chosen = of_set.choose('repair', 1)
  assert len(set(chosen)) == 2 and chosen == of_set.choose('repair', 1) != of_set.choose('repair', 2)
  assert not set(chosen) & set(own.choose('repair', 1))
  assert prompts.Examples(known, 'zh').choose('charm', 1) == prompts._own('charm', 'zh')


def test_the_index_agrees_with_brute_force():
  rng = random.Random(0)
  known = load_split(ROOT / 'scenario_data', 'test')[:60]
  index = duplicates.Index(duplicates.Existing(held_out=known))
  for _ in range(20):
    one, other = rng.sample(known, 2)
    half = one.aggressor_prompt[: len(one.aggressor_prompt) // 2] + other.aggressor_prompt[len(other.aggressor_prompt) // 2 :]
    exact = {known_one.id: jaccard(shingles(half), shingles(known_one.aggressor_prompt)) for known_one in known}
    near = index.nearest(half)
    top = max(exact, key=exact.get)
    if exact[top] < duplicates.MAX_ACROSS:
      assert near is None
    else:
      assert near == (top, pytest.approx(exact[top]), duplicates.MAX_ACROSS)


def test_token_bounds_are_not_below_what_tokenizers_take():
  # Common tokenizers: about 4 letters a token in English, 0.6 to 1.3 tokens a Chinese character.
  assert asking.token_bound('a' * 300) == 101
  assert asking.token_bound('水' * 100) == 151


def test_an_appraisal_is_read_in_the_shapes_that_models_write():
  cue = {'text': 'the boat', 'cues': 'Boat left / boat gone/ boat left'}
  lists = {name: [cue, cue] for name in ('facts', 'needs', 'soothes', 'inflames')}
  found = stages.check_appraisal('support')({'appraisal': {**lists, 'boundary': cue}})
  assert set(found) == set(lists) and found['facts'][0] == {'text': 'the boat', 'cues': ['boat left', 'boat gone']}
  with pytest.raises(asking.Fault, match='`act`'):
    stages.check_appraisal('repair')(lists)
