"""The page as a whole: what it says, that it needs nothing else, that no text breaks out of it."""

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import report_runs
from eijax.errors import DataError
from eijax.report.write import write_report

_VOID = {'meta', 'br', 'hr', 'img', 'input', 'link', 'source', 'wbr', 'col', 'area', 'base', 'embed', 'track'}


class _Reader(html.parser.HTMLParser):
  """Collects elements and visible text; insists that every element is closed in order."""

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.open = []
    self.tags = []
    self.attributes = []
    self.text = []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value or '') for name, value in attrs]
    if tag not in _VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, name, value or '') for name, value in attrs]

  def handle_endtag(self, tag):
    assert self.open.pop() == tag, f'</{tag}> closes another element'

  def handle_data(self, data):
    if self.open and self.open[-1] != 'style':
      self.text.append(data)


def _read(folder, **options):
  page = write_report(folder, **options).read_text(encoding='utf-8')
  reader = _Reader()
  reader.feed(page)
  reader.close()
  assert not reader.open
  return page, reader, re.sub(r'\s+', ' ', ' '.join(reader.text).replace('\u00a0', ' '))


def _assert_self_contained(page, reader):
  assert not {'script', 'link', 'img', 'iframe', 'object', 'embed', 'base', 'form', 'image'} & set(reader.tags)
  for tag, name, value in reader.attributes:
    assert not name.startswith('on'), (tag, name)
    if name in ('href', 'src', 'xlink:href', 'action'):
      assert value.startswith('#'), (tag, name, value)
  assert not re.search(r'@import|url\((?!#)', page)
  ids = [value for _, name, value in reader.attributes if name == 'id']
  assert len(ids) == len(set(ids))
  targets = {value[1:] for _, name, value in reader.attributes if name == 'href'} | set(re.findall(r'url\(#([^)]+)\)', page))
  assert targets <= set(ids)


@pytest.fixture(name='finished', scope='module')
def _finished(tmp_path_factory):
  return report_runs.make_run(tmp_path_factory.mktemp('finished'), num_steps=12, eval_steps=(0, 6, 12), per_scene=3)


def test_a_finished_run_is_told_whole(finished):
  page, reader, text = _read(finished)
  _assert_self_contained(page, reader)
  assert page.count('<svg') == 2 + 6 + 1 + 2 + 4 + 4 * 3 * 2
  for words in (
      'The held-out score rose by', 'before training', 'after training', 'The two intervals are disjoint', 'CTC-GRPO on demo',
      'cannot be compared with the figures of the paper', 'Median change', 'Largest gain', 'Smallest gain',
      'I set the table for two again', 'The empty chair, 1', 'All held-out evaluations', 'policy.num_layers',
  ):
    assert words in text, words
  assert 'not finished' not in text
  summaries = [json.loads((finished / 'eval' / name / 'summary.json').read_text()) for name in ('step_000000', 'step_000012')]
  for summary in summaries:
    assert f'{summary["overall"]["score"]:+.1f}'.replace('-', '\u2212') in text
  assert 'sees.' in text and 'NaN' not in text and 'None' not in text


@pytest.mark.slow
def test_the_same_folder_gives_the_same_bytes(tmp_path):
  run = report_runs.make_run(tmp_path / 'run', num_steps=4, per_scene=1)
  first = write_report(run).read_bytes()
  assert write_report(run).read_bytes() == first
  program = 'import sys; from eijax.report.write import write_report; write_report(sys.argv[1])'
  # Another process has other hash seeds, and a user's own matplotlib settings must not show.
  (tmp_path / 'matplotlibrc').write_text('font.size: 30\naxes.grid: False\nsvg.fonttype: path\n')
  subprocess.run([sys.executable, '-W', 'error', '-c', program, str(run)], check=True, env=_environment(tmp_path))
  assert (run / 'report.html').read_bytes() == first


def _environment(config_folder):
  return os.environ | {'PYTHONHASHSEED': '7', 'MPLCONFIGDIR': str(config_folder), 'PYTHONPATH': os.getcwd()}


def test_an_unfinished_run_says_so(tmp_path):
  run = report_runs.make_run(tmp_path, num_steps=20, steps_done=7, per_scene=3)
  page, reader, text = _read(run)
  _assert_self_contained(page, reader)
  assert 'This run is not finished: 7 of 20 steps are done and only the first policy has been evaluated.' in text
  assert 'nothing can be said about what was learned' in text
  assert 'Example talks' not in text and 'after training' not in text


def test_a_run_that_has_hardly_begun(tmp_path):
  report_runs.write_json(tmp_path / 'config.json', {'num_steps': 5})
  (tmp_path / 'eval' / 'step_000000').mkdir(parents=True)
  page, reader, text = _read(tmp_path)
  _assert_self_contained(page, reader)
  assert 'No held-out score yet' in text and 'No training step has been recorded yet' in text
  assert 'The evaluation at step 0 was begun and not completed' in text
  assert 'The folder does not say who played the user' in text


def test_a_later_evaluation_of_an_unfinished_run_is_not_called_the_last(tmp_path):
  _, _, text = _read(report_runs.make_run(tmp_path, num_steps=40, steps_done=25, eval_steps=(0, 20), per_scene=1))
  assert 'the latest evaluation is the one at step 20' in text
  assert 'at step 20' in text and 'after training' not in text


def test_a_hosted_simulator_is_named_and_not_called_a_stand_in(tmp_path):
  _, _, text = _read(report_runs.make_run(tmp_path, num_steps=4, per_scene=1, embedded=False))
  assert 'The user was played by a model, qwen3-max' in text
  assert 'stand-in' not in text


def test_overlapping_intervals_are_not_sold_as_a_gain(tmp_path):
  _, _, text = _read(report_runs.make_run(tmp_path, num_steps=4, per_scene=2, gain=0.02))
  assert 'The two intervals overlap' in text and 'disjoint' not in text


def test_failed_talks_are_counted_and_left_out_of_the_examples(tmp_path):
  run = report_runs.make_run(tmp_path, num_steps=4, per_scene=3)
  rows = [json.loads(line) for line in (run / 'eval' / 'step_000004' / 'results.jsonl').read_text().splitlines()]
  report_runs.write_evaluation(run, 4, [report_runs.fail(row) if row['scene_tag'] == 'charm' else row for row in rows])
  page, _, text = _read(run)
  assert '3 of 12 talks broke off with an error' in text and 'above 5 %' in text
  assert 'broken off by an error' in text and text.count(' failed ') == 3
  assert page.count('class="example"') == 3 * 3


@pytest.mark.slow
def test_without_its_scenarios_the_report_goes_without_titles(tmp_path):
  run = report_runs.make_run(tmp_path / 'run', num_steps=4, per_scene=1)
  shutil.move(run / 'scenarios', tmp_path / 'elsewhere')
  _, _, text = _read(run)
  assert 'The opening line of the user is not shown' in text and 'The empty chair' not in text
  _, _, text = _read(run, scenarios=tmp_path / 'elsewhere')
  assert 'The opening line of the user is not shown' not in text and 'The empty chair' in text
  with pytest.raises(DataError, match='nowhere'):
    write_report(run, scenarios=tmp_path / 'nowhere')


def test_an_edited_scenario_is_not_shown_with_talks_that_began_otherwise(tmp_path):
  run = report_runs.make_run(tmp_path, num_steps=4, per_scene=1)
  path = run / 'scenarios' / 'test' / 'support_final.jsonl'
  record = json.loads(path.read_text())
  record['initial_calibration']['initial_anger'] -= 5
  report_runs.write_lines(path, [record])
  _, _, text = _read(run)
  assert 'I set the table for two' not in text and 'Half the deposit by Friday' in text


_HOSTILE = (
    '</div></section></script><script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} {% raw %} &lt;b&gt; '
    '\x00\x07\x1b[31m \u202egnp.exe\u202c \u2066\u200b\ufeff \ud800 $x^2$ Z\u0301\u0302\u0303\u0304\u0305\u0306\u0307 '
    + 'ab' * 3000
)


def test_hostile_texts_stay_texts(tmp_path):
  run = report_runs.make_run(tmp_path, num_steps=3, per_scene=2, embedded=False, thinking=True)
  rng = np.random.default_rng(1)
  for step in (0, 3):
    rows = []
    for scene in ('support', 'charm'):
      row = report_runs.make_row(rng, scene, f'{scene}{_HOSTILE}', step / 3)
      row['turns'] = [turn | dict.fromkeys(('defender', 'thought', 'simulator'), _HOSTILE) for turn in row['turns']]
      rows.append(row | {'ended_by': 'simulator_stop', 'stop_reason': _HOSTILE})
    report_runs.write_evaluation(run, step, rows)
  config = json.loads((run / 'config.json').read_text())
  config |= {'preset': _HOSTILE, _HOSTILE: _HOSTILE, 'algorithm': _HOSTILE, 'seed': _HOSTILE}
  config['simulator']['model'] = _HOSTILE
  report_runs.write_json(run / 'config.json', config)
  page, reader, text = _read(run)
  _assert_self_contained(page, reader)
  assert '<script>alert(1)</script>' in text and '{{ 7*7 }}' in text and '&lt;b&gt;' in text
  assert not re.search('[\x00-\x08\x0b-\x1f\x7f\u200b\u202a-\u202e\u2066-\u2069\ufeff]', page)
  assert '[U+202E]' in text and 'Z\u0301\u0302\u0303 ' in text
  assert re.search(r'more characters\]', text)


@pytest.mark.slow
def test_a_long_run_of_a_talkative_model_fits_two_megabytes(tmp_path):
  run = report_runs.make_run(tmp_path, num_steps=3000, steps_done=3000, per_scene=60, thinking=True)
  for step in (0, 3000):
    path = run / 'eval' / f'step_{step:06d}' / 'results.jsonl'
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
      for turn in row['turns']:
        turn |= {'defender': '我在听。' * 500, 'thought': '她想要的是名字。' * 800, 'simulator': '你说。' * 500}
    report_runs.write_lines(path, rows)
  assert len(write_report(run).read_bytes()) < 2_000_000


def test_keys_in_a_config_are_hidden(tmp_path):
  run = report_runs.make_run(tmp_path, num_steps=3, per_scene=1)
  config = json.loads((run / 'config.json').read_text())
  config['simulator'] = {
      'model': 'm', 'api_keys': ['sk-111'], 'urls': ['https://user:sk-222@host.example/v1?api_key=sk-333&x=1'], 'max_tokens': 900
  }
  config['Authorization'] = 'Bearer sk-444'
  report_runs.write_json(run / 'config.json', config)
  page, _, text = _read(run)
  assert 'sk-' not in page and 'host.example/v1?api_key=(hidden)&x=1' in text and 'max_tokens' in text and '900' in text


@pytest.mark.parametrize('break_it, message', [
    (lambda run: shutil.rmtree(run), 'is not a folder'),
    (lambda run: (run / 'config.json').unlink(), 'holds no config.json'),
    (lambda run: (run / 'config.json').write_text('[]'), 'must hold a JSON object'),
    (lambda run: (run / 'metrics.jsonl').write_text('{"step": "one"}\n'), 'record 1: `step` = \'one\''),
    (lambda run: (run / 'eval/step_000000/summary.json').write_text('{"overall": {}}'), '`overall` = {} must be'),
    (lambda run: (run / 'eval/step_000000/results.jsonl').write_text('{"id": "a", "scene_tag": "war"}\n'), '`scene_tag` = \'war\''),
    (
        lambda run: (run / 'eval/step_000000/results.jsonl').write_text(
            '{"id": "a", "scene_tag": "charm", "score": 0, "turns": [{"anger": 3}]}\n'
        ),
        'turn 1: `trust` = None must be a number',
    ),
])
def test_a_broken_folder_gives_one_clear_message(tmp_path, break_it, message):
  run = report_runs.make_run(tmp_path / 'run', num_steps=3, per_scene=1)
  break_it(run)
  with pytest.raises(DataError, match=re.escape(message)):
    write_report(run)


def test_command(tmp_path):
  def call(*arguments):
    return subprocess.run(
        [sys.executable, '-m', 'eijax.report', *map(str, arguments)], capture_output=True, text=True, check=False
    )

  report_runs.write_json(tmp_path / 'run' / 'config.json', {'num_steps': 5})
  done = call(tmp_path / 'run')
  assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / 'run' / 'report.html'))
  wrong = call(tmp_path / 'nowhere')
  assert wrong.returncode == 1 and 'nowhere: is not a folder' in wrong.stderr and 'Traceback' not in wrong.stderr
  usage = call()
  assert usage.returncode == 2 and 'give one run folder' in usage.stderr
  shown = call('--help')
  assert '--scenarios' in shown.stdout
