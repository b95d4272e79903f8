"""The simulator client: seeds, corrections, typed failures, statistics, cost."""

import json
import threading
import time

import pytest

from eijax.chat import client as chat_lib
from eijax.chat.client import ChatClient
from eijax.chat.wire import Exchange, Wire
from eijax.errors import SimulatorError
from eijax.episodes.strip_think import strip_think
from eijax.simulator.client import SimulatorClient, SimulatorFailure
from fake_endpoint import FakeEndpoint, Fault
from talks import make_episode

ANSWER = json.dumps({'reflection': 'r', 'anger_delta': -3, 'trust_delta': 2, 'reply': 'Go on.', 'continue': 'yes'})


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
  monkeypatch.setattr(chat_lib, '_BASE_DELAY_SECS', 0.01)


def make_client(endpoint, max_retries=2, concurrency=4, **settings):
  chat = ChatClient([endpoint.url], 'm', max_retries=max_retries, concurrency=concurrency, timeout_secs=5)
  return SimulatorClient(chat, **settings)


def test_request_holds_the_visible_reply_and_derived_seed():
  with FakeEndpoint(lambda request: ANSWER) as endpoint:
    client = make_client(endpoint, temperature=0.3, max_tokens=77)
    reply = strip_think('<think>my secret plan</think>I am here.')
    answer = client.submit(make_episode(seed=5), reply).result()
    client.submit(make_episode(seed=5), reply).result()
    client.submit(make_episode(seed=6), reply).result()
    client.submit(make_episode(('Hm.', 0, 0), seed=5), reply).result()
  assert (answer.anger_delta, answer.trust_delta, answer.reply) == (-3, 2, 'Go on.')
  first, again, other_seed, other_round = endpoint.requests
  assert first == again and first['temperature'] == 0.3 and first['max_tokens'] == 77
  assert len({r['seed'] for r in endpoint.requests}) == 3 and all(0 <= r['seed'] < 2**31 for r in endpoint.requests)
  sent = json.dumps(first)
  assert 'I am here.' in sent and 'secret plan' not in sent


def test_unreadable_answer_is_asked_for_again_with_a_correction():
  answers = iter(['No JSON.', '{"reply": "x"}', ANSWER])
  with FakeEndpoint(lambda request: next(answers)) as endpoint:
    client = make_client(endpoint)
    assert client.submit(make_episode(), strip_think('Hi.')).result().reply == 'Go on.'
    stats = client.stats(reset=True)
  first, second, third = endpoint.requests
  assert second['messages'][:2] == first['messages'] == third['messages'][:2]
  assert second['messages'][2] == {'role': 'assistant', 'content': 'No JSON.'}
  assert 'no JSON object' in second['messages'][3]['content']
  assert len(third['messages']) == 4 and 'neither' in third['messages'][3]['content']
  assert len({r['seed'] for r in endpoint.requests}) == 3
  assert (stats['requests'], stats['parse_retries'], stats['retries'], stats['failures']) == (3, 2, 0, 0)
  assert client.stats()['requests'] == 0


def test_correction_is_in_the_language_of_the_scenario():
  answers = iter(['', ANSWER])
  with FakeEndpoint(lambda request: next(answers)) as endpoint:
    episode = make_episode(aggressor_profile__system_prompt='### 背景\n你叫小林。')
    make_client(endpoint).submit(episode, strip_think('你好。')).result()
  quoted, correction = endpoint.requests[1]['messages'][2:]
  assert quoted['content'] == '...' and 'JSON 对象' in correction['content']


def test_failure_is_typed_after_all_attempts():
  with FakeEndpoint(lambda request: 'No.') as endpoint:
    client = make_client(endpoint, max_attempts=2)
    with pytest.raises(SimulatorFailure, match='2 tried: no JSON object'):
      client.submit(make_episode(), strip_think('Hi.')).result()
    assert len(endpoint.requests) == 2 and client.stats()['failures'] == 1
  with FakeEndpoint(script=[Fault(500)] * 9) as endpoint:
    client = make_client(endpoint)
    with pytest.raises(SimulatorFailure, match='round 1: .* answered 500'):
      client.submit(make_episode(), strip_think('Hi.')).result()
    stats = client.stats()
    assert (stats['requests'], stats['retries'], stats['failures'], stats['latency_secs_mean']) == (1, 2, 1, 0.0)


def test_check_is_a_simulator_error():
  with FakeEndpoint(keys=['k']) as endpoint:
    with pytest.raises(SimulatorError, match='answered 401.*EIJAX_SIMULATOR_API_KEYS'):
      make_client(endpoint).check()


def test_text_in_the_reasoning_channel_is_read():
  body = {'choices': [{'message': {'content': '', 'reasoning_content': f'hm </think> {ANSWER}'}}]}
  with FakeEndpoint(lambda request: body) as endpoint:
    assert make_client(endpoint).submit(make_episode(), strip_think('Hi.')).result().reply == 'Go on.'


def test_statistics_add_up_over_threads():
  count = iter(range(10_000))
  lock = threading.Lock()

  def answer(request):
    with lock:
      return 'bad' if next(count) % 4 == 0 else ANSWER

  with FakeEndpoint(answer) as endpoint:
    client = make_client(endpoint, concurrency=16, max_attempts=8)
    episode, reply = make_episode(), strip_think('Hi.')
    futures = [client.submit(episode, reply) for _ in range(80)]
    assert all(future.result().reply == 'Go on.' for future in futures)
    stats = client.stats()
  assert stats['requests'] == len(endpoint.requests) == 80 + stats['parse_retries']
  assert 0 < stats['latency_secs_mean'] <= 5 and stats['latency_secs_p95'] >= stats['latency_secs_mean'] / 2


def test_client_costs_little(monkeypatch):
  # Without a network: what remains is rendering, JSON, threads and parsing.
  reply, episode = strip_think('I am here. ' * 20), make_episode(*[('I am here. ' * 20, -1, 1)] * 6)
  with FakeEndpoint() as endpoint:
    client = make_client(endpoint, concurrency=64)
    body = json.dumps({'choices': [{'message': {'content': ANSWER}}]}).encode()

    def send(self, route, method, path, sent):
      return Exchange(url=route.url, keyed=False, sent=sent, status=200, body=body, latency_secs=0.1)

    monkeypatch.setattr(Wire, 'send', send)
    start = time.process_time()
    for future in [client.submit(episode, reply) for _ in range(200)]:
      future.result()
    # About 0.3 ms each; the bound allows for a slow or busy machine.
    assert (time.process_time() - start) / 200 < 5e-3
