"""generate, end to end, against a scripted model that goes wrong in every known way."""

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest
from fake_endpoint import Fault, chat_body
from generation_endpoint import KEY, ScriptedModel, read_lines, run_generate, stage_of

from eijax.chat.errors import Unauthorized
from eijax.curation.similarity import closest_pairs
from eijax.errors import UsageError
from eijax.generation import pools
from eijax.generation.asking import BudgetSpent
from eijax.generation.supply import GivenUp
from eijax.scenarios.load import load_file, load_split, parse_record
from eijax.scenarios.record import SCENES
from eijax.seeds import derive_seed

ROOT = pathlib.Path(__file__).resolve().parent.parent


def journal(out) -> list[dict]:
  return read_lines(pathlib.Path(out) / 'journal.jsonl')


def records(out) -> list[dict]:
  return [record for path in sorted((pathlib.Path(out) / 'train').glob('*.jsonl')) for record in read_lines(path)]


def check_set(out, num: int) -> None:
  """Complete, unique, valid; no near-copies."""
  found = load_split(out, 'train')
  assert len(found) == num
  for texts in ([one.id for one in found], [one.title for one in found], [one.opening_line for one in found if one.opening_line]):
    assert len(set(texts)) == len(texts)
  assert not closest_pairs([one.aggressor_prompt for one in found], threshold=0.5)
  combinations = [one.extra['generation']['combination'] for one in found]
  assert len(set(combinations)) == num
  for one in found:
    levels = vars(one.anchors).values()
    assert all(level % 5 == 0 for level in levels)


@pytest.mark.parametrize('language', ('en', 'zh'))
def test_a_plain_run_writes_the_format_of_the_authors(tmp_path, language, capsys):
  with ScriptedModel() as model:
    run_generate(model, tmp_path, '--num=8', f'--language={language}', '--appraisal')
  assert model.stages() == {'expand': 8, 'goal': 8, 'worst': 8, 'appraisal': 8}
  check_set(tmp_path, 8)
  found = load_split(tmp_path, 'train')
  assert collections.Counter(one.scene for one in found) == dict.fromkeys(SCENES, 2)
  for one in found:
    assert one.language == language
    assert one.appraisal is not None
    assert (one.opening_line is None) == (one.scene == 'charm')
    assert one.aggressor_prompt.count('### ') == 6 and one.defender_prompt.count('### ') == 4
    assert ('### 已知事实\n- ' if language == 'zh' else '### Known facts\n- ') in one.aggressor_prompt
    assert one.extra['theme'] and one.extra['generation']['model'] == 'm'
  temperatures = {stage_of(request)[0]: request['temperature'] for request in model.requests}
  assert temperatures == {'expand': 1.0, 'goal': 0.2, 'worst': 0.2, 'appraisal': 0.2}
  printed = capsys.readouterr()
  assert '8 accepted, 0 rejected' in printed.out
  assert '32,000 in, 6,400 out' in printed.out and 'tokens 32,000 in' in printed.err


def _spoil_everything(stage, number, answer):
  """The first answers of each stage: no JSON, fenced, cut off, wrong types; then faults of the content."""
  text = json.dumps(answer, ensure_ascii=False)
  if stage == 'reclean':
    return {**answer, 'user': {**answer['user'], 'logic': ''}} if number == 0 else None
  if number == 0:
    return 'I would rather not.'
  if number == 1:
    return f'<think>{{"title": "no"}}</think>Here it is:\n```json\n{text}\n```\nGood luck.'
  if number == 2:
    return chat_body(text[: len(text) // 2], finish_reason='length')
  if number == 3:
    wrong = {'expand': {'user': [1, 2]}, 'goal': {'success_criteria': 7}, 'worst': {'worst_anger_min': 'high'}, 'appraisal': {'facts': 'none'}}
    return {**answer, **wrong[stage]}
  if number == 4:
    return ''
  if stage == 'goal' and number == 5:
    return {**answer, 'initial_anger': '62', 'target_anger': 75, 'initial_trust': 40.0, 'target_trust': 38}
  if stage == 'worst' and number == 6:
    return {**answer, 'worst_anger_min': 20, 'worst_trust_min': 90}
  if stage == 'expand' and number in (6, 7):
    user = {name: text for name, text in answer['user'].items() if name != 'purpose'}
    return {**answer, 'user': user | {'facts': ['You met [name] once.']}}
  return None


def test_injected_faults_leave_a_complete_unique_valid_set(tmp_path, capsys):
  faults = [
    Fault(status=429, body={'error': {'message': 'slow down'}}, headers={'Retry-After': '0'}),
    Fault(status=500, body=b'<html>oops</html>'),
    Fault(drop=True),
    Fault(status=429, body={}),
    Fault(status=503, body={}),
    Fault(body=b'{"choices": '),
    Fault(delay_secs=1.5, body={}),  # Longer than the timeout below.
  ]
  with ScriptedModel(_spoil_everything, script=faults) as model:
    run_generate(model, tmp_path, '--num=16', '--appraisal', '--concurrency=4', '--timeout_secs=1')
  assert not model.script
  check_set(tmp_path, 16)
  assert not read_lines(tmp_path / 'rejected.jsonl')
  stages = model.stages()
  assert stages['reclean'] >= 3  # Two items with broken sheets, one of whose answers was broken again.
  # Every answer that could not be used is told to the model in the request that follows.
  corrected = [request for request in model.requests if 'could not be used' in request['messages'][1]['content']]
  assert len(corrected) == sum('fault' in entry for entry in journal(tmp_path)) >= 17
  repaired = [record for record in records(tmp_path) if 'anchors_repaired' in record['generation']]
  assert len(repaired) == 2
  recleaned = [record for record in records(tmp_path) if record['generation'].get('recleaned')]
  assert len(recleaned) == 2 and not any('[name]' in json.dumps(record) for record in recleaned)
  assert 'requests resent' in capsys.readouterr().out


def test_what_cannot_be_mended_is_rejected_with_its_reason_and_replaced(tmp_path):
  refused = []

  def spoil(stage, number, answer):
    if stage == 'expand' and number == 1:
      refused.append(answer)
      return {**answer, 'user': {**answer['user'], 'style': ''}}
    return 'no' if stage == 'reclean' else None

  with ScriptedModel(spoil) as model:
    run_generate(model, tmp_path, '--num=4', '--concurrency=1', '--max_attempts=3')
  check_set(tmp_path, 4)
  assert model.stages()['reclean'] == 3
  [rejected] = read_lines(tmp_path / 'rejected.jsonl')
  assert 'reclean: no usable answer, 3 tried' in rejected['reason'] and 'no JSON object' in rejected['reason']
  assert rejected['record']['title'] == refused[0]['title']


def _existing_set(tmp_path, combination=None):
  """A set of one held-out and one train scenario, from a run of its own."""
  folder = tmp_path / 'existing'
  with ScriptedModel() as model:
    run_generate(model, tmp_path / 'made', '--num=2', '--scene=support', '--seed=5')
  held_out, known = records(tmp_path / 'made')
  if combination:
    held_out['generation']['combination'] = combination
  for split, record in (('test', held_out), ('train', known)):
    (folder / split).mkdir(parents=True)
    (folder / split / 'support_final.jsonl').write_text(json.dumps(record) + '\n', encoding='utf-8')
  return folder, held_out, known


def _user_of(record) -> dict:
  names = ('background', 'role', 'style', 'facts', 'logic', 'purpose')
  bodies = [part.split('\n', 1)[1].strip() for part in record['aggressor_profile']['system_prompt'].split('### ')[1:]]
  return dict(zip(names, bodies))


def test_copies_of_held_out_items_of_the_set_and_of_the_run_are_rejected(tmp_path):
  folder, held_out, known = _existing_set(tmp_path)
  answers = []

  def spoil(stage, number, answer):
    if stage != 'expand':
      return None
    answers.append(answer)
    fresh = answer['user']
    if number == 0:  # Two of six sections: more than a fifth of all 5-grams, less than a half.
      return {**answer, 'user': {**fresh, **{name: _user_of(held_out)[name] for name in ('background', 'facts')}}}
    if number == 1:  # The same share of a train item is no copy.
      return {**answer, 'user': {**fresh, **{name: _user_of(known)[name] for name in ('background', 'facts')}}}
    if number == 2:
      return {**answer, 'user': _user_of(known)}
    if number == 3:
      return {**answer, 'user': answers[1]['user'] | {'facts': _user_of(known)['facts']} | {'background': _user_of(known)['background']}}
    if number == 4:
      return {**answer, 'opening_line': answers[1]['opening_line'].upper()}
    if number == 5:
      return {**answer, 'title': answers[1]['title']}
    return None

  with ScriptedModel(spoil) as model:
    run_generate(model, tmp_path / 'new', '--num=3', '--scene=support', '--concurrency=1', f'--against={folder}')
  found = load_file(tmp_path / 'new' / 'train' / 'support_final.jsonl')
  assert len(found) == 3
  reasons = [entry['reason'] for entry in journal(tmp_path / 'new') if entry.get('end') == 'rejected']
  assert [next(name for name in (held_out['id'], known['id'], 'opening', 'gen-en') if name in reason) for reason in reasons] == [
    held_out['id'], known['id'], 'gen-en', 'opening',
  ]  # fmt: skip
  assert 'below 0.2' in reasons[0] and 'below 0.5' in reasons[1]
  titles = [one.title for one in found]
  assert f'{answers[1]["title"]} (2)' in titles


def test_combinations_of_held_out_items_are_never_asked_for(tmp_path):
  first = next(pools.combinations('support', 0)).key
  folder, _, _ = _existing_set(tmp_path, combination=first)
  with ScriptedModel() as model:
    run_generate(model, tmp_path / 'new', '--num=2', '--scene=support', f'--against={folder}')
  assert first not in [entry.get('item') for entry in journal(tmp_path / 'new')]


def test_a_model_that_is_never_sound_is_given_up(tmp_path):
  with ScriptedModel(lambda stage, number, answer: {}) as model:
    with pytest.raises(GivenUp, match='12 items were rejected.*expand: no usable answer, 2 tried'):
      run_generate(model, tmp_path, '--num=4', '--scene=charm', '--max_attempts=2', '--concurrency=2')
  assert len(read_lines(tmp_path / 'rejected.jsonl')) >= 12


def test_a_refused_text_is_rejected_but_a_refused_key_ends_the_run(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('EIJAX_MODEL_API_KEY', KEY)
  blocked = Fault(status=400, body={'error': {'message': 'content policy'}})
  with ScriptedModel(script=[blocked], keys={KEY}) as model:
    run_generate(model, tmp_path / 'a', '--num=4', '--concurrency=1')
  assert 'content policy' in read_lines(tmp_path / 'a' / 'rejected.jsonl')[0]['reason']
  check_set(tmp_path / 'a', 4)
  with ScriptedModel(keys={'another'}) as model:
    with pytest.raises(Unauthorized, match='EIJAX_MODEL_API_KEY') as error:
      run_generate(model, tmp_path / 'b', '--num=4')
  printed = capsys.readouterr()
  everything = str(error.value) + printed.out + printed.err
  for path in tmp_path.rglob('*'):
    everything += path.read_text(encoding='utf-8') if path.is_file() else ''
  assert KEY not in everything


def test_the_budget_is_kept_and_raising_it_goes_on(tmp_path):
  limit = 60_000
  with ScriptedModel() as model:
    with pytest.raises(BudgetSpent, match='raise it and run the same command again'):
      run_generate(model, tmp_path, '--num=24', f'--max_cost_tokens={limit}', '--max_tokens=400', '--concurrency=4')
    spent = sum(sum(entry.get('tokens', ())) for entry in journal(tmp_path))
    assert limit - 12_000 < spent <= limit  # Less than the bound of one more call is left.
    num = len(model.requests)
    assert len(records(tmp_path)) > 0
    run_generate(model, tmp_path, '--num=24', '--max_tokens=400')
    assert len(model.requests) == 72 and num < 72
  check_set(tmp_path, 24)


def test_more_can_be_asked_for_later_and_nothing_is_written_twice(tmp_path):
  with ScriptedModel() as model:
    run_generate(model, tmp_path, '--num=4')
    first = {record['id']: record for record in records(tmp_path)}
    run_generate(model, tmp_path, '--num=4')
    assert len(model.requests) == 12
    run_generate(model, tmp_path, '--num=8')
    assert len(model.requests) == 24
    check_set(tmp_path, 8)
    assert {record['id']: record for record in records(tmp_path)}.items() >= first.items()
    with pytest.raises(UsageError, match='begun with seed=0, now seed=1'):
      run_generate(model, tmp_path, '--num=8', '--seed=1')
    with pytest.raises(UsageError, match='--noresume'):
      run_generate(model, tmp_path, '--num=8', '--noresume')
    assert len(model.requests) == 24


def test_the_same_seed_gives_the_same_set(tmp_path):
  found = []
  for name, concurrency in (('a', 1), ('b', 6)):
    with ScriptedModel() as model:
      run_generate(model, tmp_path / name, '--num=6', f'--concurrency={concurrency}')
    found.append(records(tmp_path / name))
  assert found[0] == found[1]


def _command(endpoint, out, *arguments) -> list[str]:
  return [
    sys.executable, '-m', 'eijax.scenarios', 'generate', f'--out={out}', '--against=', f'--model_url={endpoint.url}',
    '--model=m', '--num=16', '--concurrency=4', '--appraisal', *arguments,
  ]  # fmt: skip


@pytest.mark.parametrize('num_before_kill', (pytest.param(9, marks=pytest.mark.slow), 42))
def test_a_killed_run_loses_and_repeats_nothing(tmp_path, num_before_kill):
  def spoil(stage, number, answer):
    time.sleep(0.01 + 0.02 * (number % 3))  # Items drift apart, and are killed in different stages.
    return 'no' if number in (3, 8) else None

  with ScriptedModel(spoil) as model:
    process = subprocess.Popen(_command(model, tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(model.requests) < num_before_kill and process.poll() is None:
      time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    time.sleep(0.1)  # Answers that were under way find nobody.
    # The last line may be cut short; what stands before it is finished.
    with open(tmp_path / 'journal.jsonl', 'a', encoding='utf-8') as file:
      file.write('{"item": "support/gr')
    lines = (tmp_path / 'journal.jsonl').read_text(encoding='utf-8').splitlines()[:-1]
    before = [json.loads(line) for line in lines]
    finished = {(entry['item'], entry['stage']) for entry in before if 'value' in entry}
    assert finished
    num_before = len(model.requests)
    result = subprocess.run(_command(model, tmp_path), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    after = model.requests[num_before:]
  check_set(tmp_path, 16)
  asked = {request['seed'] for request in after}
  for item, stage in finished:
    assert not asked & {derive_seed('generation', 0, item, stage, attempt) for attempt in range(4)}
  entries = journal(tmp_path)
  stages = [(entry['item'], entry['stage']) for entry in entries if 'value' in entry]
  assert len(stages) == len(set(stages)) == 16 * 4
  assert entries[: len(before)] == before
  # Nothing but the four answers under way at the kill was asked for twice.
  assert len(model.requests) <= 16 * 4 + sum('fault' in entry for entry in entries) + 4


def test_two_runs_cannot_share_a_folder(tmp_path):
  hold, entered = threading.Event(), threading.Event()

  def spoil(stage, number, answer):
    entered.set()
    hold.wait(10)

  with ScriptedModel(spoil) as model:
    first = threading.Thread(target=run_generate, args=(model, tmp_path, '--num=1', '--scene=charm'))
    first.start()
    entered.wait(10)
    with pytest.raises(UsageError, match='another process'):
      run_generate(model, tmp_path, '--num=1', '--scene=charm')
    hold.set()
    first.join()
  assert len(records(tmp_path)) == 1


@pytest.mark.parametrize('language', ('en', 'zh'))
def test_a_dry_run_calls_and_writes_nothing(tmp_path, language, capsys):
  out = tmp_path / 'out'
  with ScriptedModel() as model:
    run_generate(model, out, '--num=10', '--dry_run', f'--language={language}', '--scene=charm,defense', '--max_cost_tokens=5000')
    assert model.num_connections == 0
  assert not out.exists()
  printed = capsys.readouterr().out
  combination = next(pools.combinations('defense', 0))
  assert 'defense: 5 wanted, 0 there' in printed and combination.key in printed
  assert combination.texts(language)['situation'] in printed
  assert 'calls: 30 if every answer is sound, at most 160' in printed
  assert '--max_cost_tokens=5,000' in printed


def test_a_dry_run_counts_only_what_is_missing(tmp_path, capsys):
  with ScriptedModel() as model:
    run_generate(model, tmp_path, '--num=4', '--appraisal')
    run_generate(None, tmp_path, '--num=8', '--appraisal', '--dry_run')
  printed = capsys.readouterr().out
  assert 'items still to write: 4' in printed and 'calls: 16 if' in printed


@pytest.mark.parametrize(
  'arguments, said',
  (
    (('--scene=suport',), '--scene=suport must be all'),
    (('--model_url=',), '--model_url must name'),
    (('--against=/nowhere',), '--against=/nowhere'),
    (('extra',), "unexpected argument 'extra'"),
    (('--model_url=ftp://x',), 'must look like http://host:port/v1'),
  ),
)
def test_bad_input_is_a_usage_error(tmp_path, arguments, said):
  with pytest.raises(UsageError, match=said):
    run_generate(None, tmp_path / 'out', *arguments, *(() if '--model' in arguments[0] else ('--model_url=http://127.0.0.1:9/v1',)), '--model=m')


def test_every_record_parses_alone(tmp_path):
  with ScriptedModel() as model:
    run_generate(model, tmp_path, '--num=4')
  for record in records(tmp_path):
    assert parse_record(record, 'here').data_source == 'eijax-generated'
