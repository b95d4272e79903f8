"""Record and replay: bit for bit, in any order, after any kill, without a secret."""

import concurrent.futures
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import pytest

from eijax.chat import client as client_lib
from eijax.chat import errors
from eijax.chat.client import ChatClient
from eijax.chat.recording import FILE, Recorder, Replayer
from eijax.chat.usage import UsageMeter
from eijax.errors import DataError
from fake_endpoint import FakeEndpoint, Fault, chat_body

KEY = 'sk-very-secret-0123456789'
NOWHERE = 'http://127.0.0.1:9/v1'


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 0.01)


def messages(number):
  return [{'role': 'user', 'content': f'Question {number}, 你好 \ud83d'}]


def make_client(url, exchanges=None, **settings):
  settings = {'max_retries': 3, 'timeout_secs': 1.0, 'concurrency': 8} | settings
  return ChatClient([getattr(url, 'url', url)], 'm', exchanges=exchanges, **settings)


def outcome(client, number, **settings):
  """All that a caller can see of one request."""
  try:
    return client.complete(messages(number), temperature=0.5, max_tokens=100, seed=number, **settings)
  except errors.ChatError as error:
    return type(error), str(error), error.num_retries


def counting():
  numbers = iter(range(10**6))
  return lambda request: f'Answer {next(numbers)} to {request["messages"][0]["content"]}'


FAULTS = [
    Fault(429, b'', {'Retry-After': '0'}), Fault(500), Fault(drop=True), Fault(body=b'\xff\xfe\x00'), Fault(body=b'<html>'),
    Fault(delay_secs=1.5), Fault(body=chat_body(None, refusal='No.')), Fault(raw=(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf',)),
]


def test_replay_is_the_same_bit_for_bit_in_any_order(tmp_path):
  with FakeEndpoint(counting(), script=FAULTS + [Fault(400, {'detail': 'bad'}), Fault(403)]) as endpoint:
    with Recorder(tmp_path) as recorder, make_client(endpoint, recorder, api_keys=[KEY]) as client:
      assert not recorder.is_resumed
      recorded = list(client.pool.map(lambda number: outcome(client, number), range(30)))
      # Equal requests are told apart by how often they came.
      recorded += [outcome(client, 7) for _ in range(3)]
  assert sum(isinstance(result, tuple) for result in recorded) >= 2
  assert len({result.text for result in recorded[-3:]}) == 3
  numbers = [*range(30), 7, 7, 7]
  order = sorted(range(33), key=lambda i: (random.Random(i).random(), i))
  order = [i for i in order if numbers[i] != 7] + [i for i in range(33) if numbers[i] == 7]
  start = time.monotonic()
  with Replayer(tmp_path) as replayer, make_client(NOWHERE, replayer, max_retries=0) as client:
    client.check()
    replayed = {i: outcome(client, numbers[i]) for i in order}
    with pytest.raises(errors.NotRecorded, match='no .further. request.*Question 7'):
      outcome(client, 7)
  assert [replayed[i] for i in range(33)] == recorded  # Latencies, retries and the words of errors included.
  assert time.monotonic() - start < 2, 'a replay waits for nothing'
  with Replayer(tmp_path) as replayer, make_client(NOWHERE, replayer) as client:
    assert list(client.pool.map(lambda i: outcome(client, numbers[i]), range(30))) == recorded[:30]


def test_what_stands_in_a_recording(tmp_path):
  refused = Fault(401, {'error': {'message': f'Incorrect API key provided: {KEY}'}}, {'Set-Cookie': f'a={KEY}'})
  with FakeEndpoint(script=[Fault(429, b'', {'Retry-After': '0'}), refused]) as endpoint:
    with Recorder(tmp_path) as recorder, make_client(endpoint, recorder, api_keys=[KEY]) as client:
      assert outcome(client, 1)[0] is errors.Unauthorized
      assert outcome(client, 2, extra_body={'top_p': 0.9}).text == 'Hello.'
  content = (tmp_path / FILE).read_text(encoding='utf-8')
  assert KEY not in content and '***' in content
  first, second, third = map(json.loads, content.splitlines())
  assert (first['attempt'], first['status'], first['end'], first['headers']['retry-after']) == (0, 429, None, '0')
  assert first['request'] == {
      'model': 'm', 'messages': [{'role': 'user', 'content': 'Question 1, 你好 ?'}], 'temperature': 0.5, 'max_tokens': 100, 'seed': 1}
  assert (second['attempt'], second['status'], second['end'], second['call']) == (1, 401, 'Unauthorized', first['call'])
  assert (third['end'], third['request']['top_p'], third['key'] != first['key']) == ('answered', 0.9, True)
  assert json.loads(third['body'])['choices'][0]['message']['content'] == 'Hello.' and third['latency_secs'] > 0


def test_what_an_endpoint_does_not_take_is_replayed_in_any_order(tmp_path):
  """The seed is left out on the way, and still tells requests apart."""
  refused = Fault(400, {'error': {'param': 'seed', 'message': 'seed is not supported'}}, delay_secs=0.3)
  with FakeEndpoint(counting(), script=[refused] * 2) as endpoint:
    with Recorder(tmp_path) as recorder, make_client(endpoint, recorder, timeout_secs=5) as client:
      # Two are refused before anything is known of it.
      futures = [client.submit(messages(0), seed=seed, max_tokens=5) for seed in range(2)]
      recorded = {seed: future.result() for seed, future in enumerate(futures)}
      recorded |= {seed: client.complete(messages(0), seed=seed, max_tokens=5) for seed in range(2, 6)}
      assert client.adaptations == {endpoint.url: ('seed not sent',)}
    assert sum('seed' in request for request in endpoint.requests) == 2
  assert len({result.text for result in recorded.values()}) == 6
  for order in (range(6), reversed(range(6))):
    with Replayer(tmp_path) as replayer, make_client(NOWHERE, replayer) as client:
      assert {seed: client.complete(messages(0), seed=seed, max_tokens=5) for seed in order} == recorded


def test_shrunk_request_is_replayed(tmp_path):
  complaint = Fault(400, {'error': {'message': 'maximum context length is 90 tokens, 20 in the messages'}})
  with FakeEndpoint(script=[complaint]) as endpoint, Recorder(tmp_path) as recorder:
    with make_client(endpoint, recorder) as client:
      recorded = outcome(client, 1)
  assert recorded.max_tokens == 70
  with Replayer(tmp_path) as replayer, make_client(NOWHERE, replayer) as client:
    assert outcome(client, 1) == recorded


def test_resumed_recording_answers_from_itself_and_appends(tmp_path):
  with FakeEndpoint(counting(), script=[Fault(500)] * 4) as endpoint:
    with Recorder(tmp_path) as recorder, make_client(endpoint, recorder) as client:
      assert outcome(client, 0)[0] is errors.ServerFailed
      first = [outcome(client, number) for number in range(1, 5)]
    num_requests = len(endpoint.requests)
    with Recorder(tmp_path) as recorder, make_client(endpoint, recorder) as client:
      assert recorder.is_resumed
      assert [outcome(client, number) for number in range(1, 5)] == first
      assert len(endpoint.requests) == num_requests, 'what is known is not asked again'
      mended = outcome(client, 0)  # A failure is no answer: it is.
      fresh, again = outcome(client, 9), outcome(client, 1)
    assert len(endpoint.requests) == num_requests + 3 and again.text != first[0].text
  with Replayer(tmp_path) as replayer, make_client(NOWHERE, replayer) as client:
    assert outcome(client, 0) == mended and outcome(client, 9) == fresh
    assert [outcome(client, number) for number in range(1, 5)] == first and outcome(client, 1) == again


RECORDING = '''
import json
import sys
from eijax.chat.client import ChatClient
from eijax.chat.recording import Recorder
with Recorder(sys.argv[2]) as recorder, ChatClient([sys.argv[1]], 'm', concurrency=4, exchanges=recorder) as client:
  def ask(number):
    result = client.complete([{'role': 'user', 'content': f'Question {number}'}], seed=number)
    sys.stdout.write(json.dumps([number, result.text]) + chr(10))
    sys.stdout.flush()
  for _ in client.pool.map(ask, range(400)):
    pass
'''


def test_killed_recording_is_readable_and_keeps_all_that_was_answered(tmp_path):
  rng = random.Random(0)
  answered = {}
  with FakeEndpoint(counting(), script=[Fault(500)] * 20) as endpoint:
    for _ in range(2):
      process = subprocess.Popen(
          [sys.executable, '-c', RECORDING, endpoint.url, str(tmp_path)], stdout=subprocess.PIPE, text=True)
      lines = [process.stdout.readline() for _ in range(rng.randint(20, 90))]
      os.kill(process.pid, signal.SIGKILL)
      lines += process.stdout.readlines()
      process.wait()
      for line in lines:
        if line.endswith('\n'):
          number, text = json.loads(line)
          assert answered.setdefault(number, text) == text, 'a resumed recording gives what it gave before'
  path = tmp_path / FILE
  path.write_bytes(path.read_bytes() + b'{"call": "cut off')
  assert len(answered) > 40
  with Replayer(tmp_path) as replayer, ChatClient([NOWHERE], 'm', exchanges=replayer) as client:
    ask = lambda number: client.complete([{'role': 'user', 'content': f'Question {number}'}], seed=number).text
    assert {number: ask(number) for number in answered} == answered
  with Recorder(tmp_path):
    pass
  assert path.read_bytes().endswith(b'}\n'), 'the cut line is gone'


def test_writers_that_wait_share_one_sync(tmp_path, monkeypatch):
  syncs = []
  sync = os.fsync
  monkeypatch.setattr(os, 'fsync', lambda descriptor: (syncs.append(1), time.sleep(0.05), sync(descriptor)))
  with Recorder(tmp_path) as recorder, concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(lambda number: recorder.append({'number': number}), range(64)))
  assert len(syncs) < 32
  lines = (tmp_path / FILE).read_text().splitlines()
  assert sorted(json.loads(line)['number'] for line in lines) == list(range(64))


def test_bad_recordings_are_refused_with_their_place(tmp_path):
  with pytest.raises(DataError, match='No such file.*folder of a recording'):
    Replayer(tmp_path / 'none')
  (tmp_path / FILE).write_text('{"call": "a", "key": "b", "attempt": 0}\n{"key": 3}\n')
  with pytest.raises(DataError, match=f'{FILE}:2: is no exchange'):
    Replayer(tmp_path)


def test_another_model_is_seen_before_the_run(tmp_path):
  with FakeEndpoint() as endpoint, Recorder(tmp_path) as recorder, make_client(endpoint, recorder) as client:
    client.check()
    outcome(client, 1)
  with Replayer(tmp_path) as replayer, ChatClient([NOWHERE], 'other', exchanges=replayer) as client:
    with pytest.raises(errors.NotRecorded, match="no request to the model 'other', but to m; name"):
      client.check()


def test_a_replay_opens_no_socket(tmp_path, monkeypatch):
  with FakeEndpoint() as endpoint, Recorder(tmp_path) as recorder, make_client(endpoint, recorder) as client:
    recorded = outcome(client, 1)

  def refuse(*args, **kwargs):
    raise AssertionError('a socket was opened')

  monkeypatch.setattr(socket.socket, 'connect', refuse)
  meter = UsageMeter()
  with Replayer(tmp_path) as replayer, make_client(NOWHERE, replayer, meter=meter) as client:
    client.check()
    assert outcome(client, 1) == recorded
  assert meter.totals()['requests'] == 1


def test_full_disk_is_an_error_of_the_run_and_not_of_the_endpoint(tmp_path):
  if not pathlib.Path('/dev/full').exists():
    pytest.skip('needs /dev/full')
  with FakeEndpoint() as endpoint, Recorder(tmp_path) as recorder, make_client(endpoint, recorder) as client:
    recorder._file._file = open('/dev/full', 'ab', buffering=0)  # pylint: disable=consider-using-with
    for _ in range(2):
      with pytest.raises(errors.EijaxError, match='free some space') as caught:
        client.complete(messages(1))
      assert not isinstance(caught.value, errors.ChatError)


# Costs.


def test_meter_counts_what_endpoints_say_and_bounds_what_they_do_not():
  bodies = iter([
      {'prompt_tokens': 10, 'completion_tokens': 5}, {'prompt_tokens': 10.0, 'completion_tokens': 1, 'total_tokens': 99},
      {}, None, {'prompt_tokens': 'many', 'completion_tokens': -1}, {'prompt_tokens': 10**12, 'completion_tokens': True},
  ])
  meter = UsageMeter()
  with FakeEndpoint(lambda request: chat_body('x' * 30) | {'usage': next(bodies)}, script=[Fault(500)]) as endpoint:
    with make_client(endpoint, meter=meter) as client:
      for number in range(2):
        client.complete([{'role': 'user', 'content': 'y' * 60}], seed=number)
      assert meter.totals() == {'requests': 2, 'retries': 1, 'prompt_tokens': 20, 'completion_tokens': 6, 'unknown_usage': 0}
      for number in range(4):
        client.complete([{'role': 'user', 'content': 'y' * 60}], seed=number)
  # A third of the characters and one, and eight for the role.
  assert meter.totals() == {
      'requests': 6, 'retries': 1, 'prompt_tokens': 20 + 4 * 29, 'completion_tokens': 6 + 4 * 11, 'unknown_usage': 4}


def test_budget_stops_further_requests_and_not_those_under_way():
  def slow(request):
    time.sleep(0.05)
    return chat_body('Hi.') | {'usage': {'prompt_tokens': 40, 'completion_tokens': 10}}

  meter = UsageMeter(max_tokens=100)
  with FakeEndpoint(slow) as endpoint, make_client(endpoint, meter=meter, concurrency=4) as client:
    futures = [client.submit(messages(number)) for number in range(20)]
    results = [future.exception() for future in futures]
  spent = [error for error in results if error is not None]
  assert all(isinstance(error, errors.BudgetSpent) and not isinstance(error, errors.ChatError) for error in spent)
  assert 'max_tokens=100' in str(spent[0]) and 2 <= len(endpoint.requests) <= 6
  assert meter.totals()['requests'] == len(endpoint.requests) == 20 - len(spent)
  with pytest.raises(ValueError, match='max_tokens=0'):
    UsageMeter(0)


def test_meter_adds_up_over_threads():
  meter = UsageMeter()
  usage = {'prompt_tokens': 3, 'completion_tokens': 2}
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda _: meter.add([], '', usage, 1), range(2000)))
  assert meter.totals() == {
      'requests': 2000, 'retries': 2000, 'prompt_tokens': 6000, 'completion_tokens': 4000, 'unknown_usage': 0}
