"""The embedded simulator over real HTTP."""

import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests
import simulator_cards as cards

from eijax.chat import client as client_lib
from eijax.chat.client import ChatClient
from eijax.episodes import protocol
from eijax.simulator import faults, prompts
from eijax.simulator.client import SimulatorClient
from eijax.simulator.embedded import EmbeddedSimulator
from eijax.simulator.faults import Faults
from eijax.simulator.process import running_server, start_in_subprocess
from eijax.simulator.server import (
  MAX_BODY_BYTES,
  MODEL,
  SimulatorServer,
)


def _messages(text='Your brother sends a thumbs-up, and that is not help.', seed=0):
  return prompts.render(protocol.start(cards.SUPPORT, max_rounds=8, seed=seed), cards.reply(text))


@pytest.fixture
def serve():
  """Start servers in threads of this process."""
  servers = []

  def start(**settings):
    server = SimulatorServer(**settings)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    servers.append(server)
    return server.url

  start.servers = servers
  yield start
  for server in servers:
    server.shutdown()
    server.server_close()


def _ask(url, session=requests, **extra):
  return session.post(
    f'{url}/chat/completions',
    json={'model': 'any', 'messages': _messages(), 'seed': 1, **extra},
    timeout=10,
  )


def test_answers_like_the_engine_and_lists_its_model(serve):
  url = serve(seed=5)
  payload = _ask(url).json()
  assert payload['object'] == 'chat.completion' and payload['choices'][0]['finish_reason'] == 'stop'
  assert payload['choices'][0]['message']['content'] == EmbeddedSimulator(5).answer(_messages(), 1)
  assert payload['usage']['total_tokens'] > 0
  assert requests.get(f'{url}/models', timeout=5).json()['data'][0]['id'] == MODEL
  assert requests.get(url.replace('/v1', '/healthz'), timeout=5).json() == {'status': 'ok'}


def test_concurrent_requests_agree_with_sequential_ones(serve):
  url = serve()
  texts = [f'I wonder about {index}, and the bathroom floor.' for index in range(24)]
  expected = [
    EmbeddedSimulator(0).answer(_messages(text), index) for index, text in enumerate(texts)
  ]
  with requests.Session() as session, concurrent.futures.ThreadPoolExecutor(12) as pool:
    ask = lambda index: session.post(
      f'{url}/chat/completions',
      json={'messages': _messages(texts[index]), 'seed': index},
      timeout=20,
    ).json()
    got = list(pool.map(ask, range(24)))
  assert [answer['choices'][0]['message']['content'] for answer in got] == expected


@pytest.mark.parametrize(
  'body, needle',
  [
    (b'not json', 'not a chat completion'),
    (b'{}', 'messages'),
    (b'[]', 'not a chat completion'),
    (b'{"messages": "hi"}', 'list of objects'),
    (b'{"messages": [{"role": "user", "content": "hi"}]}', 'system'),
    (b'{"messages": [], "stream": true}', 'stream'),
    (b'{"messages": [], "seed": "x"}', 'seed'),
  ],
)
def test_bad_requests_get_a_clear_400(serve, body, needle):
  response = requests.post(f'{serve()}/chat/completions', data=body, timeout=5)
  assert response.status_code == 400 and needle in response.json()['error']['message']


def test_other_paths_sizes_and_keys(serve):
  url = serve(api_key='right')
  assert (
    requests.get(f'{url}/nothing', headers={'Authorization': 'Bearer right'}, timeout=5).status_code
    == 404
  )
  assert _ask(url).status_code == 401
  assert (
    requests.get(f'{url}/models', headers={'Authorization': 'Bearer wrong'}, timeout=5).status_code
    == 401
  )
  assert (
    requests.post(
      f'{url}/chat/completions',
      json={'messages': _messages()},
      headers={'Authorization': 'Bearer right'},
      timeout=5,
    ).status_code
    == 200
  )
  assert requests.post(f'{url}/other', data=b'{}', timeout=5).status_code == 404
  host, port = url.split('/')[2].split(':')
  with socket.create_connection((host, int(port)), timeout=5) as raw:
    raw.sendall(
      f'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY_BYTES + 1}\r\n\r\n'.encode()
    )
    assert b' 413 ' in raw.recv(200)


def test_keep_alive_serves_many_requests_on_one_connection(serve):
  with requests.Session() as session:
    url = serve()
    first = _ask(url, session)
    assert first.headers.get('Connection', '') != 'close'
    start = time.perf_counter()
    for _ in range(50):
      assert _ask(url, session).status_code == 200
    assert (time.perf_counter() - start) / 50 < 0.05  # Nagle's algorithm would add 40 ms to each.


def test_a_client_that_hangs_up_leaves_no_traceback(serve, capfd):
  url = serve(latency_secs=0.2)
  with pytest.raises(requests.exceptions.Timeout):
    requests.post(f'{url}/chat/completions', json={'messages': _messages()}, timeout=0.02)
  time.sleep(0.6)
  assert requests.get(f'{url}/models', timeout=5).status_code == 200
  assert 'Traceback' not in capfd.readouterr().err


def _outcome(url, index):
  body = json.dumps({'messages': _messages(f'line {index} of the talk'), 'seed': index})
  try:
    response = requests.post(f'{url}/chat/completions', data=body, timeout=5)
  except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError):
    return 'reset'
  if response.status_code != 200:
    return response.status_code
  try:
    json.loads(response.json()['choices'][0]['message']['content'])
  except (ValueError, TypeError, LookupError):
    return 'broken'
  return 'ok'


def test_faults_are_mixed_repeatable_and_pass_on_retry(serve, monkeypatch):
  monkeypatch.setattr(faults, 'SILENCE_SECS', 0.02)
  first, second = serve(fault_rate=0.5, seed=1), serve(fault_rate=0.5, seed=1)
  # Enough of them for every kind of fault to come up.
  outcomes = [_outcome(first, index) for index in range(160)]
  assert [_outcome(second, index) for index in reversed(range(160))][::-1] == outcomes
  assert {'ok', 'reset', 'broken', 429, 500, 503} <= set(outcomes)
  # A request that failed comes through within a few more attempts.
  failed = outcomes.index(500)
  assert 'ok' in [_outcome(first, failed) for _ in range(12)]
  again = serve(fault_rate=0.5, seed=1)
  limited = [
    requests.post(
      f'{again}/chat/completions',
      data=json.dumps({'messages': _messages(f'line {index} of the talk'), 'seed': index}),
      timeout=5,
    )
    for index, outcome in enumerate(outcomes)
    if outcome == 429
  ]
  assert {'Retry-After' in response.headers for response in limited} == {True, False}


@pytest.mark.parametrize('name', faults.ALL)
def test_every_fault_can_be_drawn_and_the_client_gets_through(serve, name, monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 0.01)
  plain, faulty = serve(seed=2), serve(seed=2, fault_rate=0.6)
  # This fault alone, for most requests.
  faulty_server = serve.servers[-1]
  faulty_server.faults = Faults(seed=2, latency_secs=0.0, fault_rate=0.6, names=[name])
  answers, stats = [], []
  for url in (plain, faulty):
    with ChatClient([url], MODEL, max_retries=20, timeout_secs=20, concurrency=8) as chat:
      client = SimulatorClient(chat, max_attempts=6)
      futures = [
        client.submit(
          protocol.start(cards.SUPPORT, max_rounds=8, seed=index), cards.reply(f'line {index} and the glass')
        )
        for index in range(8)
      ]
      answers.append([future.result(timeout=30) for future in futures])
      stats.append(client.stats())
  assert answers[0] == answers[1]
  assert stats[1]['failures'] == 0
  if name not in faults.ODD_SHAPES:
    assert stats[1]['retries'] + stats[1]['parse_retries'] + stats[1]['requests'] > 8


def test_latency_has_the_mean_that_was_asked_for():
  delays = [
    Faults(seed=0, latency_secs=0.2, fault_rate=0.0).draw(str(index).encode()).delay_secs
    for index in range(4000)
  ]
  assert sum(delays) / len(delays) == pytest.approx(0.2, rel=0.05)  # Standard error about 1 %.
  assert len(set(delays)) > 3900


def test_running_server_in_its_own_process():
  with running_server(seed=5) as url:
    assert _ask(url).json()['choices'][0]['message']['content'] == EmbeddedSimulator(5).answer(
      _messages(), 1
    )
  with pytest.raises(requests.exceptions.ConnectionError):
    requests.get(f'{url}/models', timeout=2)


def test_sigterm_ends_it_cleanly():
  process = start_in_subprocess()
  os.kill(process.pid, signal.SIGTERM)
  deadline = time.time() + 10
  while process.alive() and time.time() < deadline:
    time.sleep(0.02)
  assert not process.alive()
  assert process.exit_code == 0
  process.stop()


def test_it_dies_with_a_parent_that_is_killed():
  code = 'from eijax.simulator.process import start_in_subprocess as s; import time; p = s(); print(p.pid, p.url, flush=True); time.sleep(60)'
  parent = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
  pid, url = parent.stdout.readline().split()
  assert requests.get(f'{url}/models', timeout=5).status_code == 200
  parent.kill()
  parent.wait()
  parent.stdout.close()
  deadline = time.time() + 10
  while time.time() < deadline and _accepts(url):
    time.sleep(0.05)
  assert not _accepts(url), f'server {pid} outlived its parent'


def _accepts(url):
  host, port = url.split('/')[2].split(':')
  try:
    socket.create_connection((host, int(port)), timeout=1).close()
    return True
  except OSError:
    return False


def _command(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'eijax.simulator', *arguments],
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )


@pytest.mark.parametrize(
  'arguments, status, needle',
  [
    (('--fault_rate=2',), 2, 'must lie in 0..1'),
    (('--latency_secs=-1',), 2, 'at least 0'),
    (('extra',), 2, 'unexpected argument'),
  ],
)
def test_bad_flags_exit_2_with_one_line(arguments, status, needle):
  result = _command(*arguments)
  assert result.returncode == status and needle in result.stderr
  assert result.stderr.count('\n') == 1 and not result.stdout


def test_a_taken_port_exits_1_with_one_line():
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    result = _command(f'--port={taken.getsockname()[1]}')
  assert (
    result.returncode == 1
    and 'cannot be opened' in result.stderr
    and result.stderr.count('\n') == 1
  )


def test_importing_the_simulator_is_light():
  code = 'import sys, eijax.simulator.server; print(sorted({"jax", "flax", "matplotlib", "numpy", "scipy"} & set(sys.modules)))'
  assert (
    subprocess.run(
      [sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()
    == '[]'
  )
