"""Quality of a set: similarity, validate, stats, dedup, build, and the command line around them."""

import itertools
import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from card_files import write_cards
from fake_endpoint import FakeEndpoint, Fault
from talks import make_record

from eijax.curation import sections, similarity, validate, vocabulary
from eijax.curation.dedup import combinations_of
from eijax.scenarios.__main__ import SUBCOMMANDS, main
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES, SPLITS

USER_SECTIONS = (
  'Background', 'Role and stance', 'Speaking style and personality', 'Known facts', 'Behaviour logic and preferences',
  'Purpose',
)  # fmt: skip
CHINESE_USER_SECTIONS = ('背景', '角色与立场', '说话风格与性格', '已知事实', '行为逻辑与偏好', '目的')
CHINESE_PARTNER_SECTIONS = ('背景', '角色与立场', '已知事实', '核心目标')


def _words(rng, number):
  return ' '.join(rng.choice('abcdefghijklmnopqrstuvwxyz') + str(rng.randrange(10_000)) for _ in range(number))


def _sheet(rng, headings, number=40):
  return '\n\n'.join(f'### {heading}\n{_words(rng, number)}' for heading in headings)


def _record(scene, key, **changes):
  """A sound record with texts of its own."""
  rng = random.Random(f'{scene}/{key}')
  own = {
    'id': f'{scene}-{key}', 'title': f'Title {scene} {key}',
    'aggressor_profile__system_prompt': _sheet(rng, USER_SECTIONS),
    'defender_profile__system_prompt': _sheet(rng, ('Background', 'Role and stance', 'Known facts', 'Core goal')),
  }  # fmt: skip
  if scene != 'charm':
    own['aggressor_profile__opening_line'] = f'Opening {_words(rng, 6)}'
  return make_record(scene, **(own | changes))


def _sound_set():
  return {(split, scene): [_record(scene, f'{split}{n}') for n in range(3)] for split in SPLITS for scene in SCENES}


def _write(folder, records):
  for (split, scene), rows in records.items():
    path = folder / split / f'{scene}_final.jsonl'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows), encoding='utf-8')
  return folder


def _run(*arguments):
  """Exit status of the command, in this process."""
  try:
    main(['eijax.scenarios', *map(str, arguments)])
  except SystemExit as stop:
    return stop.code
  return 0


def _failed(folder, **settings):
  return {check.name: check.violations for check in validate.check_set(folder, **settings) if check.violations}


# Similarity.


def _brute_force(texts_a, texts_b, threshold):
  sets_a = [similarity.shingles(text) for text in texts_a]
  sets_b = sets_a if texts_b is None else [similarity.shingles(text) for text in texts_b]
  pairs = (
    itertools.combinations(range(len(sets_a)), 2) if texts_b is None
    else itertools.product(range(len(sets_a)), range(len(sets_b)))
  )
  found = [(i, j, similarity.jaccard(sets_a[i], sets_b[j])) for i, j in pairs]
  return sorted((pair for pair in found if pair[2] >= threshold), key=lambda pair: (-pair[2], pair[0], pair[1]))


def _overlapping_texts(seed, number):
  """Texts that share runs of words, of all lengths from 0 words on."""
  rng = random.Random(seed)
  source = _words(rng, 60).split()
  texts = []
  for _ in range(number):
    start, size = rng.randrange(40), rng.randrange(0, 50)
    texts.append(' '.join([*source[start : start + size], *_words(rng, rng.randrange(30)).split()]))
  return texts


@pytest.mark.parametrize('threshold', (1e-9, 0.2, 0.5, 1.0))
def test_closest_pairs_are_those_of_brute_force(threshold):
  # More than one block of rows.
  texts, others = _overlapping_texts(1, 300), _overlapping_texts(1, 40)
  assert similarity.closest_pairs(texts, threshold=threshold) == _brute_force(texts, None, threshold)
  assert similarity.closest_pairs(texts, others, threshold) == _brute_force(texts, others, threshold)


def test_closest_pair_and_nearest_agree_with_all_pairs():
  texts, others = _overlapping_texts(2, 280), _overlapping_texts(2, 30)
  for second in (None, others):
    pairs = _brute_force(texts, second, 1e-9)
    assert similarity.closest_pair(texts, second) == pairs[0]
    best = np.zeros(len(texts))
    for i, j, value in pairs:
      best[i] = max(best[i], value)
      if second is None:
        best[j] = max(best[j], value)
    np.testing.assert_array_equal(similarity.nearest(texts, second), best)


def test_shingles_are_word_or_character_runs_without_case_and_punctuation():
  assert similarity.shingles("He said: “Sorry”, and I didn’t.") == {"he said sorry and i", "said sorry and i didn't"}
  assert similarity.shingles('你好，世界很大') == {'你 好 世 界 很', '好 世 界 很 大'}
  assert similarity.shingles('So it is') == {'so it is'} and similarity.shingles(' ... ') == frozenset()


def test_jaccard_is_the_share_of_common_shingles():
  assert similarity.jaccard(frozenset('abc'), frozenset('bcd')) == 0.5
  assert similarity.jaccard(frozenset(), frozenset()) == 0
  assert similarity.closest_pair(['one two', 'three four']) is None
  assert similarity.closest_pairs([], [], 0.5) == [] and similarity.closest_pairs(['a'], None, 0.5) == []


@pytest.mark.parametrize('threshold', (0, -1, 1.01))
def test_a_threshold_out_of_range_is_refused(threshold):
  with pytest.raises(ValueError, match='threshold='):
    similarity.closest_pairs(['a'], threshold=threshold)


# Sections.


def test_sections_are_found_in_any_order_and_wording_near_ours():
  sheet = '## 1. Purpose and goals ##\nx\n### KNOWN FACTS\n- a\n2) b\n\n### Behavior logic\nx\n### Personality\nx\n### Stance\nx\n###Background\nx'
  assert sections.missing_sections(sheet, sections.AGGRESSOR) == ()
  assert sections.facts(sheet) == ('a', 'b')


def test_missing_and_empty_sections_are_named():
  sheet = _sheet(random.Random(0), USER_SECTIONS[:-1]) + '\n### Purpose\n  \n'
  assert sections.missing_sections(sheet, sections.AGGRESSOR) == ('purpose',)
  assert sections.missing_sections(sheet, sections.DEFENDER) == ('core goal',)
  assert len(sections.missing_sections('You are Ann.', sections.AGGRESSOR)) == 6


# Validate.


def test_a_sound_set_passes(tmp_path, capsys):
  assert _run('validate', _write(tmp_path, _sound_set())) == 0
  out = capsys.readouterr().out
  assert 'every check passes' in out and 'train to test' in out and 'FAIL' not in out


def _same_sheet(records, source, target):
  prompt = records[source][0]['aggressor_profile']['system_prompt']
  records[target][1]['aggressor_profile']['system_prompt'] = prompt


def _replace(field, value):
  def change(records):
    rows = records['train', 'support']
    rows[1] = _record('support', 'train1', **{field: value})

  return change


def _half_copy(records, key=('test', 'repair')):
  """A train sheet of which about half stands in another sheet: allowed within a split, not across."""
  source = records[key][0]['aggressor_profile']['system_prompt'].split('\n\n')
  target = records['train', 'repair'][1]['aggressor_profile']
  target['system_prompt'] = '\n\n'.join(source[:3] + target['system_prompt'].split('\n\n')[3:])


@pytest.mark.parametrize(
  'change, check, words',
  [
    (_replace('id', 'charm-test0'), 'ids', 'charm-test0'),
    (_replace('title', 'TITLE charm, test0'), 'titles', 'charm_final.jsonl:1'),
    (_replace('aggressor_profile__opening_line', 'opening, line'), None, ''),
    (_replace('worst_case__worst_anger_min', 93), 'anchors', 'worst_anger = 93 must be a multiple of 5; round it to 95'),
    (_replace('rub_goals__target_anger', 70), 'anchors', 'target_anger < initial_anger'),
    (_replace('scene_tag', 'charm'), 'loads', 'opening line'),
    (_replace('goal_one_liner', 7), 'loads', 'goal_one_liner'),
    (_replace('aggressor_profile__system_prompt', '### Background\nYou.'), 'aggressor sections', 'known facts'),
    (_replace('defender_profile__system_prompt', '### Background\nYou.'), 'defender sections', 'core goal'),
    (lambda records: _same_sheet(records, ('train', 'charm'), ('train', 'repair')), 'within train', 'Jaccard 1.000'),
    (lambda records: _same_sheet(records, ('test', 'charm'), ('test', 'repair')), 'within test', 'Jaccard 1.000'),
    (_half_copy, 'train to test', 'must be below 0.2'),
    (lambda records: records['train', 'support'].clear(), None, ''),
    (lambda records: records.pop(('test', 'charm')), 'loads', 'no such file'),
  ],
)  # fmt: skip
def test_each_broken_rule_is_found_and_no_other(tmp_path, change, check, words):
  records = _sound_set()
  change(records)
  failed = _failed(_write(tmp_path, records))
  assert set(failed) == ({check} if check else set())
  if check:
    assert len(failed[check]) == 1 and words in failed[check][0].text


def test_openings_that_differ_in_punctuation_only_are_the_same(tmp_path):
  records = _sound_set()
  for split in SPLITS:
    records[split, 'defense'][0]['aggressor_profile']['opening_line'] = 'You again.' if split == 'train' else 'You, again?'
  assert set(_failed(_write(tmp_path, records))) == {'openings'}


def test_a_line_that_is_no_json_is_listed_with_the_other_violations(tmp_path, capsys):
  records = _sound_set()
  records['test', 'charm'][0]['title'] = records['train', 'charm'][0]['title']
  _write(tmp_path, records)
  with open(tmp_path / 'train' / 'repair_final.jsonl', 'a', encoding='utf-8') as file:
    file.write('{"id": \n')
  assert _run('validate', tmp_path) == 1
  captured = capsys.readouterr()
  assert 'repair_final.jsonl:4: column' in captured.out and 'must be unique' in captured.out
  assert '2 violations' in captured.err and captured.err.count('\n') == 1


def test_strict_asks_for_what_the_shipped_set_has(tmp_path):
  extra = {'theme': 't', 'situation': 's', 'relationship': 'r', 'setting': 'p', 'content_flags': ['death'], 'appraisal': True}
  records = {
    (split, scene): [_record(scene, f'{split}0', **extra)] for split in SPLITS for scene in SCENES
  }
  folder = _write(tmp_path, records)
  assert not _failed(folder, strict=True)
  records['train', 'support'] = [
    _record('support', 'a', **(extra | {'content_flags': ['sad']})),
    _record('support', 'b', **(extra | {'title': 'Where {user} went'})),
    _record('support', 'c', **{key: value for key, value in extra.items() if key not in ('theme', 'appraisal')}),
  ]
  failed = _failed(_write(folder, records), strict=True)
  assert {name: len(found) for name, found in failed.items()} == {
    'content flags': 1, 'placeholders': 1, 'keys': 1, 'appraisal': 1
  }  # fmt: skip
  assert not _failed(folder)


def test_the_authors_format_in_chinese_passes_and_is_compared_by_characters(tmp_path):
  rng = random.Random(0)

  def sheet(headings):
    return '\n'.join(
      f'### {name}\n' + ''.join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(60)) for name in headings
    )

  records = {
    (split, scene): [
      _record(
        scene, f'{split}{n}', aggressor_profile__system_prompt=sheet(CHINESE_USER_SECTIONS),
        defender_profile__system_prompt=sheet(CHINESE_PARTNER_SECTIONS),
      )
      for n in range(2)
    ]
    for split in SPLITS for scene in SCENES
  }  # fmt: skip
  assert not _failed(_write(tmp_path, records))
  _same_sheet(records, ('test', 'charm'), ('train', 'support'))
  assert set(_failed(_write(tmp_path, records))) == {'train to test'}


def test_a_generated_set_of_one_split_passes_when_only_that_is_asked_for(tmp_path, capsys):
  _write(tmp_path, {key: rows for key, rows in _sound_set().items() if key[0] == 'train'})
  assert _run('validate', tmp_path, '--splits=train') == 0
  assert _run('validate', tmp_path) == 1
  assert _run('validate', tmp_path, '--splits=dev') == 2
  assert "--splits has 'dev'" in capsys.readouterr().err


# Stats.


def test_moving_average_ttr_is_the_mean_over_windows():
  # Windows of 3: a b a (2), b a c (3), a c c (2).
  assert vocabulary.moving_average_ttr('a b a c c'.split(), window=3) == pytest.approx((2 + 3 + 2) / 9)
  assert vocabulary.moving_average_ttr(['a'], window=3) is None


def test_stats_count_what_is_there_and_write_a_page_that_needs_nothing_else(tmp_path, capsys):
  records = _sound_set()
  for n, record in enumerate(records['train', 'repair']):
    record |= {'theme': 'a <b>promise</b>', 'content_flags': ['death', 'minors'][: n % 3]}
  folder, out = _write(tmp_path / 'set', records), tmp_path / 'out'
  assert _run('stats', folder, '--out', out) == 0
  printed = capsys.readouterr().out
  assert re.search(r'train +3 +3 +3 +3 +12', printed) and 'a <b>promise</b>' in printed
  measured = json.loads((out / 'stats.json').read_text())
  assert measured['counts'] == {split: dict.fromkeys(SCENES, 3) for split in SPLITS}
  assert measured['tables']['theme']['a <b>promise</b>']['repair'] == 3
  assert measured['tables']['content_flags'] == {
    'death': {**dict.fromkeys(SCENES, 0), 'repair': 2}, 'minors': {**dict.fromkeys(SCENES, 0), 'repair': 1}
  }  # fmt: skip
  assert measured['anchors']['charm']['initial_anger'] == {'70': 6}
  # Six sections of 40 words under headings of 15 words in all.
  assert measured['lengths']['all']["user's sheet, words"]['median'] == 6 * 40 + 15
  assert measured['lengths']['all']['opening, words']['n'] == 18
  assert measured['near_copies']['train to test']['pairs_from']['0.2'] == 0
  page = (out / 'stats.html').read_text()
  assert page.count('<svg') == 3 and '<b>' not in page
  assert not re.search(r'(src|href)="(?!#)', page) and '@import' not in page and 'url(http' not in page
  assert _run('stats', folder, '--out', tmp_path / 'again') == 0
  assert (tmp_path / 'again' / 'stats.html').read_text() == page


def test_stats_of_a_broken_set_say_where(tmp_path, capsys):
  records = _sound_set()
  del records['train', 'charm'][1]['title']
  assert _run('stats', _write(tmp_path, records)) == 1
  assert 'charm_final.jsonl:2' in capsys.readouterr().err
  assert _run('stats', tmp_path / 'train') == 1
  assert 'holds no scenario' in capsys.readouterr().err


# Dedup.


def _ids(folder):
  return {split: {scenario.id for scenario in load_split(folder, split)} for split in SPLITS}


def test_dedup_keeps_the_first_of_a_split_and_the_held_out_one_of_two(tmp_path, capsys):
  records = _sound_set()
  _same_sheet(records, ('train', 'charm'), ('train', 'repair'))
  _same_sheet(records, ('test', 'support'), ('test', 'defense'))
  _half_copy(records)  # Over the other copy in train/repair.
  records['train', 'repair'][2]['aggressor_profile'] = dict(records['test', 'charm'][2]['aggressor_profile'], opening_line='Oh')
  _same_sheet(records, ('train', 'charm'), ('train', 'defense'))
  folder, out = _write(tmp_path / 'set', records), tmp_path / 'out'
  before = {path: path.read_bytes() for path in folder.rglob('*.jsonl')}
  assert _run('dedup', folder, '--out', out) == 0
  kept, given = _ids(out), _ids(folder)
  # The one in train/charm stands after the one in train/defense.
  assert given['train'] - kept['train'] == {'repair-train1', 'repair-train2', 'charm-train0'}
  assert given['test'] - kept['test'] == {'defense-test1'}
  report = json.loads((out / 'dedup_report.json').read_text())
  assert report['num_read'] == 24 and report['num_kept'] == 20
  assert {item['id']: item['close_to'] for item in report['removed']} == {
    'repair-train1': 'repair-test0', 'repair-train2': 'charm-test2', 'charm-train0': 'defense-train1',
    'defense-test1': 'support-test0',
  }  # fmt: skip
  assert '4 removed for text' in capsys.readouterr().out
  assert {path: path.read_bytes() for path in folder.rglob('*.jsonl')} == before
  assert not _failed(out)


def test_dedup_of_a_clean_set_gives_the_same_records(tmp_path):
  folder, out = _write(tmp_path / 'set', _sound_set()), tmp_path / 'out'
  assert _run('dedup', folder, '--out', out) == 0
  for path in folder.rglob('*.jsonl'):
    assert (out / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_what_was_kept_decides_not_what_was_dropped(tmp_path):
  # b is close to a and c to b, but c is not close to a: a and c stay.
  rng = random.Random(3)
  words = _words(rng, 900).split()
  texts = [' '.join(words[start : start + 500]) for start in (0, 150, 300)]
  records = _sound_set()
  for record, text in zip(records['train', 'support'], texts):
    record['aggressor_profile']['system_prompt'] = text
  out = tmp_path / 'out'
  assert _run('dedup', _write(tmp_path / 'set', records), '--out', out) == 0
  assert not {'support-train0', 'support-train2'} - _ids(out)['train'] and 'support-train1' not in _ids(out)['train']


@pytest.mark.parametrize('inner', ('', 'test'))
def test_against_guards_other_held_out_scenarios_and_thresholds_are_flags(tmp_path, inner):
  records = _sound_set()
  guard = _sound_set()
  guard['test', 'charm'][0]['aggressor_profile']['system_prompt'] = (
    records['train', 'defense'][0]['aggressor_profile']['system_prompt']
  )
  _half_copy(records, ('train', 'charm'))
  folder = _write(tmp_path / 'set', records)
  held_out = _write(tmp_path / 'guard', {('test', 'charm'): guard['test', 'charm']}) / inner
  assert _run('dedup', folder, '--out', tmp_path / 'out', '--against', held_out) == 0
  assert _ids(folder)['train'] - _ids(tmp_path / 'out')['train'] == {'defense-train0'}
  # Without --against that one stays, and a half copy goes where the threshold is lower.
  assert _run('dedup', folder, '--out', tmp_path / 'low', '--threshold_within', '0.2') == 0
  assert _ids(folder)['train'] - _ids(tmp_path / 'low')['train'] == {'charm-train0'}


def test_equal_seed_combinations_are_matches(tmp_path):
  combination = {'theme': 'loss', 'situation': 'dog', 'relationship': 'neighbours', 'setting': 'a gate'}
  records = _sound_set()
  records['test', 'support'][0] |= combination
  records['train', 'support'][0] |= combination
  records['train', 'support'][1] |= combination | {'intensity': 'loud'}
  records['train', 'repair'][0] |= {'generation': {'combination': 'repair/a/b'}}
  records['train', 'repair'][2] |= {'generation': {'combination': 'repair/a/b'}}
  out = tmp_path / 'out'
  assert _run('dedup', _write(tmp_path / 'set', records), '--out', out) == 0
  report = json.loads((out / 'dedup_report.json').read_text())
  assert {(item['id'], item['reason']) for item in report['removed']} == {
    ('support-train0', 'same seed combination'), ('repair-train2', 'same seed combination')
  }  # fmt: skip
  assert combinations_of('support', {'theme': 'loss', 'situation': 'dog'}) == set()


class _EmbeddingEndpoint(FakeEndpoint):
  """Embeds by the first word of the section of background."""

  def _answer(self, handler, request, fault):
    allowed = handler.headers.get('Authorization') in {f'Bearer {key}' for key in self.keys}
    if fault is None and allowed and handler.path.endswith('/embeddings'):
      rows = [{'index': n, 'embedding': self.answer(text)} for n, text in enumerate(request['input'])]
      self._send(handler, 200, {'data': rows[::-1]}, {})
    else:
      super()._answer(handler, request, fault)


def _direction(text):
  # Sheets that begin alike point the same way; all others are at right angles, nearly.
  return np.random.default_rng(int.from_bytes(text.encode()[:30], 'big')).normal(size=256).tolist()


def test_an_embedding_endpoint_finds_what_words_do_not(tmp_path, monkeypatch):
  records = _sound_set()
  for key in (('test', 'charm'), ('train', 'charm')):
    prompt = records[key][1]['aggressor_profile']['system_prompt']
    records[key][1]['aggressor_profile']['system_prompt'] = 'The very same thing in other words. ' + prompt
  folder, out = _write(tmp_path / 'set', records), tmp_path / 'out'
  monkeypatch.setenv('EIJAX_EMBEDDING_API_KEY', 'secret-key')
  faults = [
    Fault(429, {'error': {'message': 'slow'}}, {'Retry-After': '0'}, only='/embeddings'),
    Fault(200, {'data': []}, only='/embeddings'),
  ]
  with_url = ('--embedding_model', 'e')
  endpoint = _EmbeddingEndpoint(_direction, faults, keys=['secret-key'])
  assert _run('dedup', folder, '--out', out, '--embedding_url', endpoint.url, *with_url) == 0
  assert sum(len(request['input']) for request in endpoint.requests) == 24 * 3  # One batch, twice in vain.
  report = (out / 'dedup_report.json').read_text()
  assert [(item['id'], item['reason']) for item in json.loads(report)['removed']] == [('charm-train1', 'embedding')]
  assert 'secret-key' not in report


def test_a_refused_embedding_key_is_one_message_without_the_key(tmp_path, monkeypatch, capsys):
  folder = _write(tmp_path / 'set', _sound_set())
  monkeypatch.setenv('EIJAX_EMBEDDING_API_KEY', 'wrong-key')
  endpoint = _EmbeddingEndpoint(_direction, keys=['secret-key'])
  flags = ('--out', tmp_path / 'out', '--embedding_url', endpoint.url, '--embedding_model', 'e')
  assert _run('dedup', folder, *flags) == 1
  message = capsys.readouterr().err.splitlines()[-1]
  assert 'EIJAX_EMBEDDING_API_KEY' in message and 'wrong-key' not in message
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
  'flags, words',
  [
    ((), '--out is missing'),
    (('--out', 'SET'), 'must be another folder'),
    (('--out', 'x', '--threshold_across', '0'), '--threshold_across=0.0'),
    (('--out', 'x', '--embedding_url', 'http://127.0.0.1:1/v1'), '--embedding_model'),
    (('--out', 'x', '--against', '/nowhere'), '--against=/nowhere'),
  ],
)
def test_flags_of_dedup_that_cannot_be_used(tmp_path, capsys, flags, words):
  folder = _write(tmp_path / 'set', _sound_set())
  assert _run('dedup', folder, *(str(folder) if flag == 'SET' else flag for flag in flags)) == 2
  assert words in capsys.readouterr().err


# Build.


def test_build_writes_and_check_finds_the_first_difference(tmp_path, capsys):
  cards, out = write_cards(tmp_path / 'cards'), tmp_path / 'set'
  flags = ('--cards', cards, '--out', out)
  assert _run('build', '--check', *flags) == 1
  assert 'no such file; run `build`' in capsys.readouterr().err
  assert _run('build', *flags) == 0
  assert '24 scenarios from' in capsys.readouterr().out
  assert _run('build', '--check', *flags) == 0
  assert len(load_split(out, 'test')) == 12

  path = out / 'train' / 'defense_final.jsonl'
  sound = path.read_text()
  for broken, words in (
    (sound.replace('"theme": "loss"', '"theme": "love"', 1), ':1: field `theme` differs'),
    (sound.rsplit('\n', 2)[0] + '\n', 'ends before line 3'),
    (sound + '{}\n', ':4: is more than the cards give'),
    (sound.replace('": "', '":"', 1), ':1: differs from what the cards give'),
    ('[1]\n' + sound, ':1: differs'),
  ):
    path.write_text(broken)
    assert _run('build', '--check', *flags) == 1
    assert f'defense_final.jsonl{words}' in capsys.readouterr().err.replace('jsonl: ', 'jsonl')
  assert path.read_text() == broken  # --check writes nothing.


# The command line.


def test_every_subcommand_of_this_room_lists_its_own_flags(capsys):
  for name in ('validate', 'stats', 'dedup', 'build'):
    assert _run(name, '--help') == 0
    out = capsys.readouterr().out
    assert f'usage: python -m eijax.scenarios {name}' in out and '--' in out
    assert ('--embedding_url' in out) == (name == 'dedup') and ('strict' in out) == (name == 'validate')


@pytest.mark.parametrize(
  'arguments, status, words',
  [
    ((), 2, 'validate'),
    (('--help',), 0, 'validate'),
    (('validat',), 2, "no such subcommand: 'validat'; use one of validate, stats"),
    (('validate',), 2, 'must be one folder'),
    (('validate', 'a', 'b'), 2, "'a b'"),
    (('validate', '/nowhere'), 2, 'DIR=/nowhere'),
    (('validate', '--strickt'), 2, "'strickt'"),
    (('build', 'extra'), 2, "unexpected argument 'extra'"),
    (('build', '--cards=/nowhere'), 2, '--cards=/nowhere'),
  ],
)
def test_bad_command_lines_exit_2_with_one_message(capsys, arguments, status, words):
  assert _run(*arguments) == status
  captured = capsys.readouterr()
  assert words in captured.out + captured.err and 'Traceback' not in captured.err


def test_the_command_runs_as_a_program_and_flags_may_stand_behind_the_folder(tmp_path):
  folder = _write(tmp_path, _sound_set())
  result = subprocess.run(
    [sys.executable, '-m', 'eijax.scenarios', 'validate', str(folder), '--strict', '--num_listed', '2'],
    capture_output=True, text=True, timeout=60, check=False, env=dict(os.environ, JAX_PLATFORMS='cpu'),
  )  # fmt: skip
  assert result.returncode == 1 and '... and ' in result.stdout
  assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1


def test_the_table_names_what_every_subcommand_does():
  assert list(SUBCOMMANDS) == ['validate', 'stats', 'dedup', 'build', 'generate', 'clean', 'fetch']
  assert all(module.startswith('eijax.') and text for module, text in SUBCOMMANDS.values())
