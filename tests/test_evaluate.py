"""The command's own code over HTTP: resumed, refused, with faults, within a budget, recorded, replayed."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from eijax import jsonl
from eijax.chat import client as client_lib
from eijax.errors import DataError, EijaxError, UsageError
from eijax.evaluate.config import EvaluateConfig, ModelConfig
from eijax.evaluate.folder import EvaluationFolder
from eijax.evaluate.run import Options, Stopped, run
from eijax.evaluation.store import read_rows, read_summary
from eijax.scenarios.load import load_split
from eijax.scripted.policy import Script
from eijax.simulator import faults
from eijax.simulator.config import SimulatorConfig
from eijax.simulator.server import SimulatorServer
from fake_endpoint import FakeEndpoint, chat_body
from tiny_run import write_scenarios

ROOT = pathlib.Path(__file__).resolve().parents[1]
ANSWER = json.dumps({'reflection': 'r', 'anger_delta': -3, 'trust_delta': 2, 'reply': 'Go on.', 'continue': 'yes'})


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 0.01)
  monkeypatch.setattr(faults, 'SILENCE_SECS', 0.05)


@pytest.fixture(scope='module')
def scenarios(tmp_path_factory):
  return write_scenarios(tmp_path_factory.mktemp('evaluate'))


@contextlib.contextmanager
def serving(**settings):
  server = SimulatorServer(**settings)
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  try:
    yield server.url
  finally:
    server.shutdown()
    server.server_close()


def make_config(scenarios, simulator_url, model_url=None, **changes):
  model = ModelConfig(name='m', urls=(model_url,), max_retries=4) if model_url else ModelConfig(name='scripted:decent')
  values = dict(model=model, simulator=SimulatorConfig(urls=(simulator_url,), model='eijax-embedded', max_attempts=3),
                scenarios=scenarios, max_rounds=3, samples=2, concurrency=4)
  return EvaluateConfig(**(values | changes))


def out(path, **options):
  return Options(out=str(path), **options)


def test_results_and_summary(scenarios, tmp_path):
  with serving() as user:
    summary = run(make_config(scenarios, user), out(tmp_path / 'a'))
  rows = read_rows(tmp_path / 'a')
  order = [scenario.id for scenario in load_split(scenarios, 'test')]
  assert [(row['id'], row['sample']) for row in rows] == [(name, sample) for name in order for sample in range(2)]
  assert summary == read_summary(tmp_path / 'a') and summary['n'] == 8 and summary['failed'] == 0
  assert summary['model'] == 'scripted:decent' and summary['settings']['seed'] == 0
  assert summary['ended_by'] == {'simulator_stop': 0, 'max_rounds': 8, 'simulator_failed': 0, 'model_failed': 0}
  assert summary['tokens']['simulator']['requests'] == 24 and summary['tokens']['model']['requests'] == 0
  assert summary['seconds'] > 0
  assert all(turn['reflection']['tier'] and turn['flags'] == [] for row in rows for turn in row['turns'])
  config = jsonl.read_json(tmp_path / 'a' / 'config.json')
  assert config['seed'] == 0 and 'eijax' in config['versions']


def test_an_endpoint_says_what_its_script_would_in_this_process(scenarios, tmp_path):
  script = Script('decent', load_split(scenarios, 'test'))
  with serving() as user, serving(responder=script, model='m') as model:
    run(make_config(scenarios, user), out(tmp_path / 'here'))
    run(make_config(scenarios, user, model), out(tmp_path / 'http'))
  assert (tmp_path / 'here' / 'results.jsonl').read_bytes() == (tmp_path / 'http' / 'results.jsonl').read_bytes()


def test_faults_change_no_result(scenarios, tmp_path):
  script = Script('decent', load_split(scenarios, 'test'))
  spoken = (*faults.FAULTS, 'odd_usage', 'content_parts', 'other_charset')
  with serving() as user, serving(responder=script, model='m') as model:
    run(make_config(scenarios, user, model, samples=4), out(tmp_path / 'sound'))
  with serving(fault_rate=0.3, seed=0) as user, serving(
      responder=script, model='m', fault_rate=0.3, fault_names=spoken) as model:
    config = make_config(scenarios, user, model, samples=4)
    quick_config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, max_retries=8), simulator=dataclasses.replace(config.simulator, timeout_secs=2))
    summary = run(quick_config, out(tmp_path / 'faulty'))
  assert summary['failed'] == 0
  assert summary['tokens']['model']['retries'] > 5 and summary['tokens']['simulator']['retries'] > 5
  assert (tmp_path / 'sound' / 'results.jsonl').read_bytes() == (tmp_path / 'faulty' / 'results.jsonl').read_bytes()


def test_a_finished_evaluation_asks_nobody(scenarios, tmp_path, capsys):
  with serving() as user:
    config = make_config(scenarios, user)
    summary = run(config, out(tmp_path))
  before = (tmp_path / 'summary.json').read_bytes()
  assert run(config, out(tmp_path)) == summary  # Nobody serves any more.
  assert (tmp_path / 'summary.json').read_bytes() == before
  assert 'all 8 talks are in' in capsys.readouterr().out


def test_other_settings_are_refused_by_name(scenarios, tmp_path):
  with serving() as user:
    config = make_config(scenarios, user)
    run(config, out(tmp_path))
    for change, words in (
        ({'seed': 1}, 'seed was 0, now 1'), ({'max_rounds': 4}, 'max_rounds was 3, now 4'),
        ({'keep_thoughts': True}, 'keep_thoughts was False, now True'), ({'limit': 2}, 'scenarios.limit was 0, now 2'),
        ({'model': ModelConfig(name='scripted:hostile')}, "model.name was 'scripted:decent', now 'scripted:hostile'"),
        ({'simulator': dataclasses.replace(config.simulator, temperature=0.1)}, 'simulator.temperature was 0.7, now 0.1'),
    ):
      with pytest.raises(UsageError, match='holds an evaluation with other settings') as caught:
        run(dataclasses.replace(config, **change), out(tmp_path))
      assert words in str(caught.value) and '--out' in str(caught.value)
    with pytest.raises(UsageError, match='drop --noresume'):
      run(config, out(tmp_path, resume=False))
    # How fast it goes decides nothing.
    run(dataclasses.replace(config, concurrency=1, simulator=dataclasses.replace(config.simulator, timeout_secs=3.0)), out(tmp_path))


def test_other_scenarios_under_the_same_name_are_refused(tmp_path):
  folder = write_scenarios(tmp_path / 'scenarios')
  with serving() as user:
    run(make_config(folder, user), out(tmp_path / 'out'))
    file = tmp_path / 'scenarios' / 'test' / 'charm_final.jsonl'
    file.write_text(file.read_text().replace('It was lost on Monday', 'It was lost on Sunday'))
    with pytest.raises(UsageError, match='scenarios.digest was'):
      run(make_config(folder, user), out(tmp_path / 'out'))


def test_results_without_their_settings_and_two_writers_are_refused(scenarios, tmp_path):
  (tmp_path / 'old').mkdir()
  (tmp_path / 'old' / 'results.jsonl').write_text('')
  with pytest.raises(UsageError, match='holds results.jsonl but no config.json'):
    run(make_config(scenarios, 'http://127.0.0.1:9/v1'), out(tmp_path / 'old'))
  with EvaluationFolder(tmp_path / 'new', {}, resume=True):
    with pytest.raises(EijaxError, match='is being written by another evaluation'):
      run(make_config(scenarios, 'http://127.0.0.1:9/v1'), out(tmp_path / 'new'))


def test_a_doubled_row_is_found(scenarios, tmp_path):
  with serving() as user:
    run(make_config(scenarios, user), out(tmp_path))
    (tmp_path / 'summary.json').unlink()
    results = tmp_path / 'results.jsonl'
    results.write_bytes(results.read_bytes() + results.read_bytes().splitlines(keepends=True)[3])
    with pytest.raises(DataError, match='holds two results for scenario'):
      run(make_config(scenarios, user), out(tmp_path))


def test_failed_talks_are_counted_reported_and_held_again(scenarios, tmp_path):
  with serving() as user:
    whole = run(make_config(scenarios, user), out(tmp_path / 'whole'))
  broken = {'on': True}

  def answer(request):
    is_charm = 'The bike was red' in request['messages'][0]['content'] and 'scene="charm"' in request['messages'][0]['content']
    if broken['on'] and is_charm:
      return 'no JSON'
    return simulated.answer(request['messages'], request['seed'])

  simulated = SimulatorServer().simulator
  with FakeEndpoint(answer, models=('eijax-embedded',)) as user:
    config = make_config(scenarios, user.url)
    with pytest.raises(EijaxError, match=r'failed=2 of n=8 talks is more than 5%.*--retry_failed'):
      run(config, out(tmp_path / 'a'))
    summary = read_summary(tmp_path / 'a')
    assert summary['failed'] == 2 and summary['ended_by']['simulator_failed'] == 2 and summary['scenes']['charm']['score'] is None
    failed = [row for row in read_rows(tmp_path / 'a') if row['error']]
    assert all('3 tried: no JSON object' in row['error'] and row['score'] is None for row in failed)
    broken['on'] = False
    user.requests.clear()
    run(config, out(tmp_path / 'a', retry_failed=True))
  assert {request['messages'][0]['content'].count('scene="charm"') for request in user.requests} == {1}
  assert len(jsonl.read_objects(tmp_path / 'a' / 'failed.jsonl')) == 2
  assert (tmp_path / 'a' / 'results.jsonl').read_bytes() == (tmp_path / 'whole' / 'results.jsonl').read_bytes()
  assert read_summary(tmp_path / 'a')['overall'] == whole['overall']


def test_a_budget_stops_the_run_and_a_larger_one_goes_on(scenarios, tmp_path):
  script = Script('decent', load_split(scenarios, 'test'))
  with serving() as user, serving(responder=script, model='m') as model:
    config = make_config(scenarios, user, model, concurrency=2)
    whole = run(config, out(tmp_path / 'whole'))
    spent = sum(counts[name] for counts in whole['tokens'].values() for name in ('prompt_tokens', 'completion_tokens'))
    with pytest.raises(Stopped, match=r'max_cost_tokens is spent; (\d) of 8 talks are kept'):
      run(dataclasses.replace(config, max_cost_tokens=spent // 2), out(tmp_path / 'a'))
    assert 0 < len(read_rows(tmp_path / 'a')) < 8 and not [row for row in read_rows(tmp_path / 'a') if row['error']]
    with pytest.raises(Stopped, match='must exceed the .* tokens that are spent already'):
      run(dataclasses.replace(config, max_cost_tokens=spent // 2), out(tmp_path / 'a'))
    summary = run(dataclasses.replace(config, max_cost_tokens=2 * spent), out(tmp_path / 'a'))
  assert (tmp_path / 'a' / 'results.jsonl').read_bytes() == (tmp_path / 'whole' / 'results.jsonl').read_bytes()
  assert summary['sessions'] == 2
  # What an open talk had cost when the budget ended was spent for nothing, but it was spent.
  assert summary['tokens']['simulator']['prompt_tokens'] >= whole['tokens']['simulator']['prompt_tokens']


def test_a_recording_replays_without_a_network(scenarios, tmp_path):
  script = Script('decent', load_split(scenarios, 'test'))
  with serving() as user, serving(responder=script, model='m') as model:
    config = make_config(scenarios, user, model)
    run(config, out(tmp_path / 'live', record=str(tmp_path / 'tape')))
  offline = dataclasses.replace(config, model=ModelConfig(name='m'), simulator=dataclasses.replace(config.simulator, urls=()))
  replayed = run(offline, out(tmp_path / 'replayed', replay=str(tmp_path / 'tape')))
  assert (tmp_path / 'live' / 'results.jsonl').read_bytes() == (tmp_path / 'replayed' / 'results.jsonl').read_bytes()
  assert replayed['overall'] == read_summary(tmp_path / 'live')['overall']
  with pytest.raises(EijaxError, match='the recording in .* holds no .*kept'):
    run(dataclasses.replace(offline, seed=5), out(tmp_path / 'other', replay=str(tmp_path / 'tape')))


def test_a_refused_key_stops_the_run_instead_of_failing_every_talk(scenarios, tmp_path):
  with FakeEndpoint(lambda request: ANSWER, models=('eijax-embedded',)) as user:
    count = iter(range(1000))

    def speak(request):
      if next(count) == 9:
        model.keys = ['another']
      return 'Hello.'

    with FakeEndpoint(speak) as model:
      config = make_config(scenarios, user.url, model.url, concurrency=1)
      with pytest.raises(Stopped, match='401.*EIJAX_MODEL_API_KEY.*3 of 8 talks are kept'):
        run(config, out(tmp_path))
      assert [row['error'] for row in read_rows(tmp_path)] == [None] * 3
      model.keys = None
      assert run(config, out(tmp_path))['failed'] == 0


def test_concurrency_bounds_the_talks_and_no_talk_waits_for_another(scenarios, tmp_path):
  gate, others = threading.Event(), []

  def speak(request):
    if 'charm-test' in str(request['messages'][0]['content']) or len(request['messages']) == 2 and not others:
      others.append(1)
      gate.wait(10)  # The first talk is held until all others have ended.
    time.sleep(0.002)
    return 'Hello.'

  with FakeEndpoint(lambda request: ANSWER, models=('eijax-embedded',)) as user, FakeEndpoint(speak) as model:
    watch = threading.Thread(target=lambda: (_until(lambda: len(read_rows(tmp_path)) >= 7), gate.set()))
    watch.start()
    summary = run(make_config(scenarios, user.url, model.url, concurrency=3), out(tmp_path))
    watch.join()
  assert summary['n'] == 8 and gate.is_set()
  assert 2 <= model.max_in_flight <= 3 and user.max_in_flight <= 3


def _until(condition, secs=15):
  end = time.monotonic() + secs
  while not condition() and time.monotonic() < end:
    time.sleep(0.01)


def test_thoughts_and_closing_reply_as_in_the_authors_evaluation(scenarios, tmp_path):
  def speak(request):
    return f'<think>plan {len(request["messages"])}</think>Line {len(request["messages"])}.'

  with FakeEndpoint(lambda request: ANSWER, models=('eijax-embedded',)) as user, FakeEndpoint(speak) as model:
    config = make_config(scenarios, user.url, model.url, samples=1)
    plain = run(config, out(tmp_path / 'plain'))
    plain_requests = list(model.requests)
    model.requests.clear()
    both = run(dataclasses.replace(config, keep_thoughts=True, charm_closing_reply=True), out(tmp_path / 'both'))
  assert both['settings']['keep_thoughts'] and both['settings']['charm_closing_reply'] and not plain['settings']['keep_thoughts']
  assert (len(plain_requests), len(model.requests)) == (12, 13)  # One reply more, in Charm.
  assert not any('plan' in str(request['messages'][1:]) for request in plain_requests)
  assert any('plan' in message['content'] for request in model.requests for message in request['messages'] if message['role'] == 'assistant')
  rows = {row['scene_tag']: row for row in read_rows(tmp_path / 'both')}
  assert rows['charm']['num_rounds'] == 3 == len(rows['charm']['turns']) and rows['charm']['ended_by'] == 'max_rounds'
  assert rows['charm']['closing']['defender'].startswith('Line ') and 'plan' in rows['charm']['closing']['thought']
  assert all('closing' not in row for scene, row in rows.items() if scene != 'charm')
  # It is never scored: the answers are the same, and so are the scores.
  assert both['overall'] == plain['overall']


def test_an_unusable_model_is_refused_before_anything_is_written(scenarios, tmp_path):
  with FakeEndpoint(lambda request: ANSWER, models=('eijax-embedded',)) as user:
    for model, words in (
        (ModelConfig(name='qwen3-8b'), "model='qwen3-8b' is no folder .* --model_url"),
        (ModelConfig(name='scripted:nobody'), "'nobody' is unknown; choose one of skilled"),
        (ModelConfig(name='m', urls=('http://127.0.0.1:9/v1',)), 'the model under test .* cannot be reached'),
    ):
      with pytest.raises(EijaxError, match=words):
        run(make_config(scenarios, user.url, model=model), out(tmp_path))
    assert not (tmp_path / 'config.json').exists()
    # The folder is not spoken for: whoever mends the setting goes on.
    assert run(make_config(scenarios, user.url), out(tmp_path))['n'] == 8


def command(*arguments, **settings):
  environment = dict(os.environ, PYTHONPATH=str(ROOT))
  return subprocess.Popen([sys.executable, '-m', 'eijax.evaluate', *arguments], cwd=ROOT, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, **settings)


def test_a_signal_says_how_to_go_on(scenarios, tmp_path):
  with serving(latency_secs=0.05) as user:
    arguments = ['--model=scripted:decent', f'--simulator_url={user}', f'--scenarios={scenarios}', f'--out={tmp_path}', '--samples=40',
                 '--concurrency=2', '--max_rounds=3']
    process = command(*arguments)
    _until(lambda: len(read_rows(tmp_path)) >= 2, 60)
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    _, stderr = process.communicate(timeout=30)
    secs = time.monotonic() - start
  kept = len(read_rows(tmp_path))
  assert process.returncode == 143 and 2 <= kept < 160 and secs < 10
  assert stderr.strip() == f'interrupted; {kept} of 160 talks are kept. Start the same command again to go on'
  assert not (tmp_path / 'summary.json').exists()


def test_help_and_bad_flags(tmp_path):
  processes = [command('--help'), command('--modell=x'), command('--samples=0', '--model=scripted:decent')]
  results = [(*process.communicate(timeout=120), process.returncode) for process in processes]
  help_text = results[0][0]
  assert results[0][2] == 0 and all(f'--{name}' in help_text or f'--[no]{name}' in help_text for name in (
      'model', 'model_url', 'simulator_extra_body', 'keep_thoughts', 'charm_closing_reply', 'max_cost_tokens', 'record', 'resume'))
  assert results[1][2] == 2 and 'modell' in results[1][1] and 'Traceback' not in results[1][1]
  assert results[2][2] == 2 and results[2][1].startswith('error: samples=0 must be at least 1')
