"""The leaderboard as data and as files; tests in a browser stand in test_leaderboard_page.py."""

import base64
import csv
import gzip
import html.parser
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import evaluation_folders
from eijax.errors import DataError, UsageError
from eijax.leaderboard import curves, entries as entries_lib, failure_modes, ranking, transcripts
from eijax.leaderboard.write import write_leaderboard
from evaluation_folders import fail, made_up_rows, write_folder

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOSTILE = '</script><script>window.broken = 1</script><img src=x onerror="window.broken = 2">&lt;b&gt; `${1}` \u2028\u202e\x00'


@pytest.fixture(name='board', scope='module')
def _board(tmp_path_factory):
  """Three models of different skill on the same 12 scenarios."""
  folder = tmp_path_factory.mktemp('board')
  rng = np.random.default_rng(0)
  for name, skill in (('good', 0.9), ('middling', 0.5), ('bad', 0.1)):
    write_folder(folder / name, made_up_rows(rng, skill, (3, 3, 3, 3)), name)
  return folder


def _entries(board, *names):
  return entries_lib.read_entries([str(board / name) for name in names or ('bad', 'good', 'middling')])


def test_entries_are_ranked_and_tested_against_the_first(board):
  entries = _entries(board)
  assert [entry.label for entry in entries] == ['good', 'middling', 'bad']
  first, second, third = entries
  assert first.against_first is None and first.p_adjusted is None
  assert third.against_first.mean == pytest.approx(third.scores['overall']['score'] - first.scores['overall']['score'], abs=1e-5)
  assert third.against_first.num == 12 and third.p_adjusted >= third.against_first.p_value
  assert second.scores == second.evaluation.summary


def test_names(board, tmp_path):
  rows = made_up_rows(np.random.default_rng(1), 0.5, (1, 1, 1, 1))
  write_folder(tmp_path / 'x' / 'run', rows, 'm')
  write_folder(tmp_path / 'y' / 'run', rows, 'm')
  write_folder(tmp_path / 'a=b', rows, 'z' * 200 + '\x1b[31m')
  entries = entries_lib.read_entries([str(tmp_path / 'x/run'), str(tmp_path / 'y/run'), str(tmp_path / 'a=b'), f'mine={board / "good"}'])
  labels = [entry.label for entry in entries]
  assert len(set(labels)) == 4 and 'mine' in labels
  assert {label for label in labels if label.startswith('m (')} == {f'm ({tmp_path.name}/{side}/run)' for side in 'xy'}
  assert all('\x1b' not in label and len(label) < 100 for label in labels)


def test_bad_arguments(board, tmp_path):
  good = str(board / 'good')
  for arguments, error, words in (
      ([], UsageError, 'no run given'), ([good, f'n={good}'], UsageError, 'is given 2 times'), ([f'={good}'], UsageError, 'NAME=FOLDER'),
      ([f'n={good}', f'n={board / "bad"}'], UsageError, "name 'n' is given 2 times"), ([str(tmp_path / 'none')], DataError, 'is not a folder'),
  ):
    with pytest.raises(error, match=words):
      entries_lib.read_entries(arguments)


def test_warnings(board, tmp_path):
  rows = made_up_rows(np.random.default_rng(1), 0.0, (1, 1, 1, 1))
  write_folder(tmp_path / 'few', [fail(row) if row['scene_tag'] == 'charm' else row for row in rows], 'few', simulator='other')
  (write_folder(tmp_path / 'open', rows, 'open') / 'summary.json').unlink()
  entries = entries_lib.read_entries([str(board / 'good'), str(tmp_path / 'few'), str(tmp_path / 'open')])
  told = ' '.join(entries_lib.warnings(entries))
  for words in (
      'different simulators (embedded, other)', 'few was evaluated on other scenarios than good (4 and 12, 4 in common)',
      '1 of 4 talks of few failed', 'open is not finished: 4 talks so far',
  ):
    assert words in told
  assert not list(entries_lib.warnings(_entries(board)))


def test_rules_are_found_in_every_form_of_reflection():
  for reflection, rule in (
      ({'rule': 'Empty apology.'}, 'empty_apology'), ('{"rule": "lecture", "tone": "flat"}', 'lecture'),
      ('core need: rest\nrule: too-early advice\ntone: flat', 'too_early_advice'), ("... 'rule': 'list', ...", 'list'),
      ('1. She wants to be heard. 2. It was cold.', None), ({'rule': None}, None), ({'tone': 'x'}, None), (['rule'], None),
      ('', None), (None, None), ({'rule': ''}, None), ('the rule of thumb', None),
  ):
    assert failure_modes.rule_of(reflection) == rule, reflection


def test_modes_are_counted_by_hand(tmp_path):
  def turn(anger, trust, rule, *flags):
    return {'anger': 50, 'trust': 50, 'anger_delta': anger, 'trust_delta': trust, 'reflection': {'rule': rule}, 'flags': list(flags)}

  row = {'id': 'a', 'scene_tag': 'repair', 'score': 0.1, 'ended_by': 'max_rounds', 'truncated_turns': 2, 'turns': [
      turn(-2, 1, 'earned'), turn(2, 2, 'nothing_new', 'json', 'json'), turn(3, 0, 'lecture'), turn(1, -1, 'rare')]}
  [entry] = entries_lib.read_entries([str(write_folder(tmp_path, [row, row | {'id': 'b', 'scene_tag': 'charm', 'turns': []}]))])
  counts = failure_modes.count_modes(entry, ['earned', 'nothing_new', 'lecture', failure_modes.OTHER_RULES])
  assert {key: counts['repair'][key] for key in ('talks', 'turns', 'gain', 'flat', 'harm', 'truncated')} == {
      'talks': 1, 'turns': 4, 'gain': 1, 'flat': 1, 'harm': 2, 'truncated': 1,
  }
  assert counts['repair']['rules'] == {'earned': 1, 'nothing_new': 1, 'lecture': 1, failure_modes.OTHER_RULES: 1}
  assert counts['repair']['flags'] == {'json': 2} and counts['overall']['ended_by'] == {'max_rounds': 2}
  assert counts['support']['talks'] == 0


def test_the_embedded_simulator_names_its_rules(tmp_path):
  """The rules come from real reflections: a lecturer is charged with lecturing, a skilled defender earns."""
  for defender in ('skilled', 'lecturer'):
    write_folder(tmp_path / defender, evaluation_folders.scripted_rows(defender, 2), defender)
  first, second = _entries(tmp_path, 'lecturer', 'skilled')
  assert [first.label, second.label] == ['skilled', 'lecturer']
  rules = failure_modes.known_rules([first, second])
  counts = [failure_modes.count_modes(entry, rules)['overall'] for entry in (first, second)]
  assert counts[0]['rules'].most_common(1)[0][0] == 'earned' and counts[1]['rules'].most_common(1)[0][0] == 'lecture'
  assert all(sum(part['rules'].values()) == part['turns'] for part in counts)


def test_many_rules_of_a_talkative_simulator_are_gathered(tmp_path):
  turns = [
      {'anger': 50, 'trust': 50, 'anger_delta': 0, 'trust_delta': 0, 'reflection': {'rule': f'rule {place}'}} for place in range(60)
  ]
  row = {'id': 'a', 'scene_tag': 'repair', 'score': 0.1, 'ended_by': 'max_rounds', 'turns': turns + turns[:10]}
  entries = entries_lib.read_entries([str(write_folder(tmp_path, [row]))])
  rules = failure_modes.known_rules(entries)
  assert len(rules) == 41 and rules[-1] == failure_modes.OTHER_RULES and set(rules[:10]) == {f'rule_{place}' for place in range(10)}
  assert failure_modes.count_modes(entries[0], rules)['overall']['rules'][failure_modes.OTHER_RULES] == 20
  assert max(max(talk[6]) for talk in transcripts.index(entries, rules)['talks'][0]) == 40


def test_curves_by_hand():
  def row(levels, **more):
    turns = [{'anger': b, 'trust': 0, 'anger_delta': b - a, 'trust_delta': 0} for a, b in zip(levels, levels[1:])]
    return {'scene_tag': 'charm', 'score': 0.0, 'turns': turns} | more

  rows = [row([40, 30, 20, 10]), row([60, 50]), row([0, 0, 0, 0], score=None)]
  found = curves.curves(rows, 3)
  for part in ('charm', 'overall'):
    assert found[part]['num_running'] == [2, 2, 1, 1]
    assert found[part]['anger'] == {'all': [50, 40, 35, 30], 'running': [50, 40, 20, 10]}
  assert found['support'] == {
      'num_running': [0] * 4, **{axis: {'all': [None] * 4, 'running': [None] * 4} for axis in ('anger', 'trust')}
  }


def test_files(board, tmp_path):
  entries = _entries(board)
  paths = write_leaderboard(entries, tmp_path, title='A | title', scenarios={})
  assert [path.name for path in paths] == ['leaderboard.md', 'leaderboard.csv', 'leaderboard.html']
  again = tmp_path / 'again'
  write_leaderboard(entries, again, title='A | title', scenarios={})
  assert all(path.read_bytes() == (again / path.name).read_bytes() for path in paths)
  rows = list(csv.DictReader(io.StringIO(paths[1].read_text())))
  assert [row['model'] for row in rows] == ['good', 'middling', 'bad']
  assert float(rows[2]['charm_low']) == entries[2].scores['scenes']['charm']['ci95'][0] and rows[0]['against_first'] == ''
  text = paths[0].read_text()
  assert text.startswith('# A \\| title\n') and len([line for line in text.splitlines() if line.startswith('|')]) == 5


def test_a_cell_that_looks_like_a_formula_is_text(tmp_path):
  folder = write_folder(tmp_path, made_up_rows(np.random.default_rng(0), 0.5, (1, 0, 0, 0)), '=HYPERLINK("http://x")|b')
  entries = entries_lib.read_entries([str(folder)])
  [row] = csv.DictReader(io.StringIO(ranking.to_csv(entries)))
  assert row['model'].startswith("'=") and float(row['overall']) and row['charm'] == ''
  assert '\\|b' in ranking.markdown(entries, 't', [])


class _Reader(html.parser.HTMLParser):
  """Elements, attributes, and the text of each script."""

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.tags, self.attributes, self.scripts = [], [], []
    self._is_script = False

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value or '') for name, value in attrs]
    self._is_script = tag == 'script'
    if self._is_script:
      self.scripts.append('')

  def handle_endtag(self, tag):
    self._is_script = False

  def handle_data(self, data):
    if self._is_script:
      self.scripts[-1] += data


def hostile_folder(folder):
  """A model all of whose texts try to break out of the page."""
  [row] = made_up_rows(np.random.default_rng(0), 0.5, (1, 0, 0, 0), num_turns=2)
  for turn in row['turns']:
    turn |= {'defender': HOSTILE, 'thought': HOSTILE, 'simulator': HOSTILE, 'reflection': {HOSTILE: HOSTILE, 'rule': HOSTILE}, 'flags': [HOSTILE]}
  row |= {'id': HOSTILE, 'stop_reason': HOSTILE, 'ended_by': HOSTILE, 'error': HOSTILE}
  return write_folder(folder, [row], HOSTILE, simulator=HOSTILE)


def test_no_text_breaks_out_and_nothing_is_fetched(tmp_path):
  entries = entries_lib.read_entries([str(hostile_folder(tmp_path / 'run'))])
  *_, page = write_leaderboard(entries, tmp_path, title=HOSTILE, scenarios={})
  reader = _Reader()
  reader.feed(page.read_text(encoding='utf-8'))
  reader.close()
  assert len(reader.scripts) == 3 and not {'img', 'link', 'iframe', 'object', 'embed', 'base'} & set(reader.tags)
  for tag, name, value in reader.attributes:
    assert not name.startswith('on') and name != 'style', (tag, name)
    assert name not in ('src', 'action') and (name != 'href' or value.startswith('#')), (tag, name, value)
  board, packed, _ = reader.scripts
  assert json.loads(board)['ids'][0].startswith('</script>')
  [talk] = json.loads(gzip.decompress(base64.b64decode(packed)))
  shown = talk[0][0][0]
  assert shown.startswith('</script><script>') and shown.endswith('[U+202E]␀')
  policy = next(value for _, name, value in reader.attributes if name == 'content' and value.startswith('default-src'))
  assert "default-src 'none'" in policy and 'unsafe' not in policy and policy.count("'sha256-") == 2


def test_texts_are_cut_and_thoughts_left_out_on_demand(board, tmp_path):
  entry = _entries(board)[0]
  talks = json.loads(gzip.decompress(base64.b64decode(transcripts.packed_talks(entry, max_chars=30, thoughts=False))))
  for row, (turns, *_) in zip(entry.rows, talks):
    for turn, shown in zip(row['turns'], turns):
      assert shown[1] == '' and shown[3:7] == [turn[name] for name in ('anger', 'trust', 'anger_delta', 'trust_delta')]
      text = turn['defender']
      assert shown[0] == text if len(text) <= 30 else re.fullmatch(re.escape(text[:30].rstrip()) + r' … \[\d+ more characters\]', shown[0])


def test_the_command(board, tmp_path):
  done = subprocess.run(
      [sys.executable, '-m', 'eijax.leaderboard', board / 'good', f'mine={board / "bad"}', '--out', tmp_path / 'out', '--title=Mine'],
      capture_output=True, text=True, timeout=120, check=False, env=os.environ | {'PYTHONPATH': str(ROOT)},
  )
  assert done.returncode == 0, done.stderr
  assert re.search(r'^1 +good ', done.stdout, re.M) and re.search(r'^2 +mine ', done.stdout, re.M)
  assert '<title>Mine</title>' in (tmp_path / 'out' / 'leaderboard.html').read_text(encoding='utf-8')
