"""The chat client against an endpoint that fails in every known way."""

import email.utils
import socket
import time

import pytest

from eijax.chat import client as client_lib
from eijax.chat import errors, outcomes
from eijax.chat.client import ChatClient
from eijax.chat.wire import Exchange
from eijax.errors import UsageError
from fake_endpoint import FakeEndpoint, Fault, chat_body

KEY = 'sk-very-secret-0123456789'
MESSAGES = [{'role': 'user', 'content': '你好 \ud83d'}]


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 0.01)


def make_client(*endpoints, **settings):
  settings = {'max_retries': 3, 'timeout_secs': 5, 'concurrency': 4} | settings
  return ChatClient([getattr(e, 'url', e) for e in endpoints], 'm', **settings)


def free_url():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return f'http://127.0.0.1:{probe.getsockname()[1]}/v1'


def test_request_and_result():
  with FakeEndpoint() as endpoint, make_client(endpoint, api_keys=[KEY]) as client:
    result = client.complete(MESSAGES, temperature=0.7, max_tokens=9, seed=3, extra_body={'top_p': 0.5})
  assert (result.text, result.finish_reason, result.retries) == ('Hello.', 'stop', 0)
  assert result.usage == {'completion_tokens': 7} and 0 < result.latency_secs < 5
  assert endpoint.requests == [{
      'model': 'm', 'messages': [{'role': 'user', 'content': '你好 ?'}],
      'temperature': 0.7, 'max_tokens': 9, 'seed': 3, 'top_p': 0.5,
  }]
  assert endpoint.headers[0]['Authorization'] == f'Bearer {KEY}'


@pytest.mark.parametrize(
    'body, text, from_reasoning',
    [
        (chat_body([{'type': 'text', 'text': 'He'}, {'type': 'reasoning', 'text': 'no'}, {'text': 'llo'}]), 'Hello', False),
        (chat_body(['He', 'llo']), 'Hello', False),
        (chat_body([{'type': 'text', 'text': {'value': 'Hello'}}]), 'Hello', False),
        (chat_body('', reasoning_content='Hello'), 'Hello', True),
        (chat_body(None, reasoning='Hello'), 'Hello', True),
        (chat_body('Hello', reasoning_content='hm'), 'Hello', False),
        (chat_body(None), '', False),
        ({'choices': [{'text': 'Hello', 'finish_reason': None}]}, 'Hello', False),
    ],
)
def test_shapes_of_content(body, text, from_reasoning):
  with FakeEndpoint(lambda request: body) as endpoint, make_client(endpoint) as client:
    result = client.complete(MESSAGES)
  assert (result.text, result.from_reasoning) == (text, from_reasoning)


@pytest.mark.parametrize(
    'fault',
    [
        Fault(500), Fault(503, b'<html>busy</html>'), Fault(429, {'error': {'message': 'slow down'}}), Fault(408),
        Fault(200, b'<html>gateway</html>'), Fault(200, b'{"choices": ['), Fault(200, b''), Fault(200, []),
        Fault(200, {'choices': []}), Fault(200, {'choices': None}), Fault(200, {'choices': [{}]}),
        Fault(200, {'choices': [{'message': 'text'}]}), Fault(200, b'[' * 10_000), Fault(200, b'\xff\xfe'),
        Fault(200, {'error': {'code': 502, 'message': 'upstream'}}), Fault(drop=True),
    ],
)
def test_passing_failure_is_retried(fault):
  with FakeEndpoint(script=[fault, fault]) as endpoint, make_client(endpoint) as client:
    result = client.complete(MESSAGES)
  assert result.text == 'Hello.' and result.retries == 2 and len(endpoint.requests) == 3


@pytest.mark.parametrize(
    'fault, error_type',
    [
        (Fault(500), errors.ServerFailed),
        (Fault(429), errors.RateLimited),
        (Fault(200, b'<html>'), errors.BadAnswer),
        (Fault(drop=True), errors.Unreachable),
    ],
)
def test_failure_that_does_not_pass_has_its_type(fault, error_type):
  with FakeEndpoint(script=[fault] * 9) as endpoint, make_client(endpoint) as client:
    with pytest.raises(error_type, match='tried 4 times') as caught:
      client.complete(MESSAGES)
  assert caught.value.num_retries == 3 and len(endpoint.requests) == 4
  assert endpoint.url in str(caught.value) and '; ' in str(caught.value)


@pytest.mark.parametrize(
    'fault, error_type, pattern',
    [
        (Fault(403, {'error': {'message': 'no'}}), errors.Unauthorized, 'EIJAX_SIMULATOR_API_KEYS'),
        (Fault(200, {'error': {'code': 401, 'message': 'no'}}), errors.Unauthorized, 'EIJAX_SIMULATOR_API_KEYS'),
        (Fault(400, {'error': {'code': 'context_length_exceeded', 'message': 'x'}}), errors.ContextTooLong, 'context'),
        (
            Fault(400, {'message': "This model's maximum context length is 4096 tokens"}),
            errors.ContextTooLong,
            'maximum context length is 4096',
        ),
        (Fault(400, {'detail': 'bad seed'}), errors.BadRequest, 'bad seed'),
        (Fault(404, b'<html>nginx</html>'), errors.BadRequest, 'ends in /v1'),
        (Fault(302, b'', {'Location': 'https://elsewhere/'}), errors.BadRequest, 'redirect'),
        (Fault(429, {'error': {'code': 'insufficient_quota', 'message': 'pay'}}), errors.RateLimited, 'pay'),
        (Fault(429, b'', {'Retry-After': '86400'}), errors.RateLimited, 'asks to wait'),
    ],
)
def test_failure_that_cannot_pass_is_not_retried(fault, error_type, pattern):
  with FakeEndpoint(script=[fault]) as endpoint, make_client(endpoint) as client:
    with pytest.raises(error_type, match=pattern):
      client.complete(MESSAGES)
  assert len(endpoint.requests) == 1


def test_key_never_stands_in_a_message():
  with FakeEndpoint(keys=['other']) as endpoint, make_client(endpoint, api_keys=[KEY]) as client:
    # This endpoint quotes the key in its answer, as some do.
    for ask in (client.check, lambda: client.complete(MESSAGES)):
      with pytest.raises(errors.Unauthorized) as caught:
        ask()
      assert KEY not in str(caught.value) and '***' in str(caught.value)
      assert caught.value.__cause__ is None
    assert KEY not in repr(client.__dict__['_routes'])


def test_bad_keys_and_urls_are_refused_without_showing_them():
  for key in (KEY + '\n', 'schlüssel', 'two keys', ''):
    with pytest.raises(UsageError, match='key number 1') as caught:
      ChatClient(['http://h/v1'], 'm', [key])
    assert KEY not in str(caught.value)
  for url in (KEY, 'ftp://h/v1', 'http://', 'http://h:port/v1'):
    with pytest.raises(UsageError, match='url number 1') as caught:
      ChatClient([url], 'm')
    assert KEY not in str(caught.value)
  with pytest.raises(UsageError, match='urls is empty'):
    ChatClient([], 'm')
  assert 'pass' not in ChatClient(['http://user:pass@h/v1?key=pass'], 'm').display


def test_unreachable_names_url_and_reason():
  url = free_url()
  with make_client(url, max_retries=1) as client:
    with pytest.raises(errors.Unreachable, match=f'{url} cannot be reached .Connection refused.'):
      client.complete(MESSAGES)
    with pytest.raises(errors.Unreachable):
      client.check()


def test_timeout_is_typed_and_retried():
  with FakeEndpoint(script=[Fault(delay_secs=2.0)]) as endpoint, make_client(endpoint, timeout_secs=0.6) as client:
    assert client.complete(MESSAGES).retries == 1
  with FakeEndpoint(script=[Fault(delay_secs=2.0)]) as endpoint:
    with make_client(endpoint, timeout_secs=0.6, max_retries=0) as client:
      with pytest.raises(errors.Unreachable, match='sent nothing for 0.6 s'):
        client.complete(MESSAGES)


def test_retry_after_is_honoured():
  date = lambda: email.utils.formatdate(time.time() + 2, usegmt=True)  # Whole seconds: 1 to 2 s from now.
  for value, least in ((lambda: '0.3', 0.3), (lambda: '1', 1.0), (date, 0.9)):
    with FakeEndpoint(script=[Fault(429, b'', {'Retry-After': value()})]) as endpoint:
      with make_client(endpoint) as client:
        start = time.monotonic()
        assert client.complete(MESSAGES).retries == 1
        assert least <= time.monotonic() - start < 4


def test_unreadable_retry_after_does_not_matter():
  for value in ('soon', '-3', '1.2.3', 'nan.'):
    with FakeEndpoint(script=[Fault(503, b'', {'Retry-After': value})]) as endpoint:
      with make_client(endpoint) as client:
        assert client.complete(MESSAGES).retries == 1


def test_the_wait_that_is_asked_for_is_finite_and_in_universal_time(monkeypatch):
  monkeypatch.setattr(outcomes.time, 'time', lambda: 1_800_000_000.0)  # Fri, 15 Jan 2027 08:00:00 GMT.
  for name, value, secs in (
      ('retry-after', '7', 7.0), ('retry-after', '0.25', 0.25), ('retry-after-ms', '1500', 1.5), ('retry-after', '-3', 0.0),
      ('retry-after', 'Fri, 15 Jan 2027 08:00:09 GMT', 9.0), ('retry-after', '15 Jan 2027 08:00:09 -0000', 9.0),
      ('retry-after', 'Fri, 15 Jan 2027 08:00:09', 9.0), ('retry-after', 'Fri, 15 Jan 2027 07:00:00 GMT', 0.0),
      ('retry-after', 'soon', None), ('retry-after', 'nan', None), ('retry-after', '1e999', None), ('retry-after-ms', 'inf', None)):
    exchange = Exchange(url='u', keyed=False, sent=b'', headers={name: value})
    assert outcomes.retry_after_secs(exchange) == secs, value


def test_next_url_is_tried_at_once(monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 60.0)
  with FakeEndpoint() as endpoint, make_client(free_url(), endpoint) as client:
    start = time.monotonic()
    assert {client.complete(MESSAGES).retries for _ in range(4)} == {0, 1}
    assert time.monotonic() - start < 5


def test_keys_and_urls_take_turns():
  with FakeEndpoint() as endpoint, make_client(endpoint, api_keys=['a', 'b', 'c']) as client:
    for _ in range(6):
      client.complete(MESSAGES)
  assert [h['Authorization'][-1] for h in endpoint.headers] == list('abcabc')
  with FakeEndpoint() as one, FakeEndpoint() as two, make_client(one, two, api_keys=['a', 'b']) as client:
    for _ in range(4):
      client.complete(MESSAGES)
    # As many keys as URLs: a key never goes to the other's server.
    assert {h['Authorization'] for h in one.headers} == {'Bearer a'} and len(one.headers) == 2
    assert {h['Authorization'] for h in two.headers} == {'Bearer b'} and len(two.headers) == 2


def test_many_in_flight_over_kept_connections():
  def slow(request):
    time.sleep(0.02)
    return request['messages'][0]['content']

  with FakeEndpoint(slow) as endpoint, make_client(endpoint, concurrency=16) as client:
    futures = [client.submit([{'role': 'user', 'content': str(i)}]) for i in range(96)]
    assert [future.result().text for future in futures] == [str(i) for i in range(96)]
    assert 8 <= endpoint.max_in_flight <= 16
    assert endpoint.num_connections <= 16


def test_environment_cannot_replace_the_key(tmp_path, monkeypatch):
  netrc = tmp_path / 'netrc'
  netrc.write_text('machine 127.0.0.1 login a password b\n')
  monkeypatch.setenv('NETRC', str(netrc))
  with FakeEndpoint() as endpoint, make_client(endpoint, api_keys=[KEY]) as client:
    client.complete(MESSAGES)
  assert endpoint.headers[0]['Authorization'] == f'Bearer {KEY}'


def test_check():
  with FakeEndpoint(keys=[KEY]) as endpoint:
    with make_client(endpoint, api_keys=[KEY]) as client:
      client.check()
    assert not endpoint.requests  # The list of models was enough.
    with make_client(endpoint, api_keys=['wrong']) as client:
      with pytest.raises(errors.Unauthorized):
        client.check()
  missing = Fault(404, b'', only='/models')
  with FakeEndpoint(script=[missing]) as endpoint, make_client(endpoint) as client:
    client.check()
    assert endpoint.requests[0]['max_tokens'] == 1
  unknown = Fault(404, {'error': {'message': 'The model `m` does not exist'}})
  with FakeEndpoint(script=[unknown], models=['other']) as endpoint, make_client(endpoint) as client:
    with pytest.raises(errors.BadRequest, match='`m` does not exist.*check the model name.*it lists other'):
      client.check()


def test_close_ends_the_waiting(monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 60.0)
  with FakeEndpoint(script=[Fault(500)] * 99) as endpoint:
    client = make_client(endpoint, concurrency=1)
    waiting = client.submit(MESSAGES)
    queued = client.submit(MESSAGES)
    while not endpoint.requests:
      time.sleep(0.01)
    time.sleep(0.05)
    client.close()
    with pytest.raises(errors.ChatError):
      waiting.result(timeout=5)
    assert queued.cancelled()
