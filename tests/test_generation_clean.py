"""clean: sound records untouched, broken ones mended by rule or by the model, the rest kept with a reason."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from fake_endpoint import Fault
from generation_endpoint import ScriptedModel, read_lines, run_clean, run_generate

from eijax import jsonl
from eijax.errors import UsageError
from eijax.scenarios.load import load_split

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module', name='sound')
def fixture_sound(tmp_path_factory):
  """language -> eight sound records."""
  found = {}
  for language in ('en', 'zh'):
    out = tmp_path_factory.mktemp(language)
    with ScriptedModel() as model:
      run_generate(model, out, '--num=8', f'--language={language}', '--appraisal')
    found[language] = [record for path in sorted((out / 'train').glob('*.jsonl')) for record in read_lines(path)]
  return found


def write(folder, rows, split='train') -> pathlib.Path:
  """rows: records, or texts that stand for a line of a support file."""
  (folder / split).mkdir(parents=True, exist_ok=True)
  for row in rows:
    scene, text = ('support', row) if isinstance(row, str) else (row.get('scene_tag', 'support').lower(), json.dumps(row, ensure_ascii=False))
    with open(folder / split / f'{scene}_final.jsonl', 'a', encoding='utf-8') as file:
      file.write(text + '\n')
  return folder


def copy(record) -> dict:
  return json.loads(json.dumps(record))


def of(records, scene) -> dict:
  return copy(next(record for record in records if record['scene_tag'] == scene))


@pytest.mark.parametrize('language', ('en', 'zh'))
def test_sound_records_stay_byte_for_byte(tmp_path, sound, language):
  folder = write(tmp_path / 'in', sound[language])
  run_clean(None, folder, tmp_path / 'out')
  for path in (folder / 'train').iterdir():
    assert (tmp_path / 'out' / 'train' / path.name).read_bytes() == path.read_bytes()
  assert not read_lines(tmp_path / 'out' / 'rejected.jsonl')


@pytest.mark.slow
def test_the_shipped_set_needs_no_cleaning(tmp_path, capsys):
  run_clean(None, ROOT / 'scenario_data', tmp_path / 'out', '--dry_run')
  assert ' sound, 0 mended by rule, 0 for a model (one call each if its answers are sound), 0 beyond mending' in capsys.readouterr().out
  assert not (tmp_path / 'out').exists()


def test_rules_mend_what_needs_no_model(tmp_path, sound):
  first, second = [copy(record) for record in sound['en'] if record['scene_tag'] == 'support']
  first['initial_calibration'] = {'initial_anger': '58', 'initial_trust': 31, 'note': 'kept'}
  first['rub_goals']['target_anger'] = 80
  first['success_criteria'] = '- one\n- two'
  first['aggressor_profile']['opening_line'] = '(quietly) "You came."'
  second['scene_tag'] = 'Support'
  profile = second['aggressor_profile']
  profile['system_prompt'] = '```\n' + re.sub('### (.+)', r'**\1**', profile['system_prompt']) + '\n```'
  charm = of(sound['en'], 'charm')
  charm['aggressor_profile']['opening_line'] = 'Hello.'
  defense = of(sound['en'], 'defense')
  del defense['must_avoid'], defense['title']
  folder = write(tmp_path / 'in', [{'row': first}, charm, defense, second])
  broken = json.dumps(of(sound['en'], 'repair')).replace('"worst_trust_min": 5', '"worst_trust_min": +5')
  broken = broken[:-1] + ',}'
  with pytest.raises(ValueError):
    json.loads(broken)
  write(folder, [broken])
  run_clean(None, folder, tmp_path / 'out')
  assert not read_lines(tmp_path / 'out' / 'rejected.jsonl')
  found = {one.id: one for one in load_split(tmp_path / 'out', 'train')}
  assert len(found) == 5
  mended = found[first['id']]
  assert (mended.anchors.initial_anger, mended.anchors.initial_trust, mended.anchors.target_anger) == (60, 30, 55)
  assert mended.extra['initial_calibration'] == {'note': 'kept'} and mended.success_criteria == ('one', 'two')
  assert mended.opening_line == 'You came.'
  original = next(record for record in sound['en'] if record['id'] == second['id'])
  assert found[second['id']].aggressor_prompt == original['aggressor_profile']['system_prompt']
  assert found[defense['id']].title == '' and found[defense['id']].must_avoid == ()
  assert found[charm['id']].appraisal is not None
  for one in found.values():
    assert one.extra['cleaned']


@pytest.mark.parametrize('language', ('en', 'zh'))
def test_the_model_mends_sheets_and_the_rest_is_kept(tmp_path, sound, language):
  thin = of(sound[language], 'repair')
  thin['aggressor_profile']['system_prompt'] = thin['aggressor_profile']['system_prompt'].rsplit('### ', 1)[0]
  loose = of(sound[language], 'defense')
  loose['defender_profile']['system_prompt'] = loose['defender_profile']['system_prompt'].replace('### ', '', 1)
  sound_one = of(sound[language], 'support')
  folder = write(tmp_path / 'in', [thin, loose, sound_one])
  run_clean(None, folder, tmp_path / 'rules')
  reasons = [entry['reason'] for entry in read_lines(tmp_path / 'rules' / 'rejected.jsonl')]
  assert len(reasons) == 2 and any("section `purpose` is missing" in reason for reason in reasons)
  assert any("section `background` is missing" in reason for reason in reasons)

  faults = [Fault(status=429, body={}, headers={'Retry-After': '0'}), Fault(status=500, body={})]
  with ScriptedModel(lambda stage, number, answer: '{"user": {}}' if number == 0 else None, script=faults) as model:
    run_clean(model, folder, tmp_path / 'out')
  assert model.stages() == {'reclean': 5}
  said = ''.join(request['messages'][1]['content'] for request in model.requests)
  assert 'section `purpose` is missing' in said and thin['defender_profile']['system_prompt'] in said
  lines = {record['id']: record for path in (tmp_path / 'out' / 'train').iterdir() for record in read_lines(path)}
  assert lines[sound_one['id']] == sound_one
  for before in (thin, loose):
    after = lines[before['id']]
    assert after['aggressor_profile']['system_prompt'].count('### ') == 6
    assert 'by the model' in after['cleaned'][-1]
    for name in ('title', 'rub_goals', 'appraisal', 'generation', 'success_criteria'):
      assert after[name] == before[name]


def test_what_cannot_be_mended_is_kept_with_its_reason(tmp_path, sound):
  no_anchor = of(sound['en'], 'support')
  no_anchor['worst_case'] = {}
  no_id = of(sound['en'], 'defense')
  no_id['id'] = 7.5
  folder = write(tmp_path / 'in', [no_anchor, '{"id": "cut', '[1]', no_id, of(sound['en'], 'repair')])
  run_clean(None, folder, tmp_path / 'out')
  reasons = [entry['reason'] for entry in read_lines(tmp_path / 'out' / 'rejected.jsonl')]
  assert len(reasons) == 4
  for said in ('`worst_anger` = None', 'no JSON object', 'one JSON object', 'field `id` = 7.5'):
    assert any(said in reason for reason in reasons), said
  assert sum(len(read_lines(path)) for path in (tmp_path / 'out' / 'train').iterdir()) == 1


def test_ids_are_unique_over_both_splits(tmp_path, sound):
  one = of(sound['en'], 'support')
  folder = write(write(tmp_path / 'in', [one, one]), [one], split='test')
  run_clean(None, folder, tmp_path / 'out')
  ids = [record['id'] for split in ('train', 'test') for record in read_lines(tmp_path / 'out' / split / 'support_final.jsonl')]
  assert ids == [one['id'], f'{one["id"]}-2', f'{one["id"]}-3']


def test_a_killed_run_goes_on(tmp_path, sound):
  rows = []
  for number in range(12):
    row = of(sound['en'], 'support')
    row['id'] = f'row-{number}'
    row['aggressor_profile']['system_prompt'] = row['aggressor_profile']['system_prompt'].rsplit('### ', 1)[0] + f'{number}'
    rows.append(row)
  folder = write(tmp_path / 'in', rows)
  out = tmp_path / 'out'
  with ScriptedModel(lambda stage, number, answer: time.sleep(0.05)) as model:
    command = [
      sys.executable, '-m', 'eijax.scenarios', 'clean', str(folder), f'--out={out}', f'--model_url={model.url}', '--model=m',
      '--concurrency=2',
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(model.requests) < 6 and process.poll() is None:
      time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.1)  # Requests that were under way arrive.
    finished = sum('value' in entry for entry in jsonl.read_objects(out / 'journal.jsonl'))
    num_before = len(model.requests)
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert len(model.requests) - num_before == 12 - finished
  assert [record['id'] for record in read_lines(out / 'train' / 'support_final.jsonl')] == [row['id'] for row in rows]


def test_bad_input(tmp_path, sound):
  folder = write(tmp_path / 'in', sound['en'])
  for where, out, arguments, said in (
    (tmp_path, tmp_path / 'out', (), 'holds no'),
    (folder, folder, (), 'another folder'),
    (folder, tmp_path / 'out', ('--model=m',), 'belong together'),
  ):
    with pytest.raises(UsageError, match=said):
      run_clean(None, where, out, *arguments)
