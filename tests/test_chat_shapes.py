"""Bodies that no specification knows of: what the chat client makes of them, in bounded time and memory."""

import gzip
import json
import time

import pytest

from eijax.chat import client as client_lib
from eijax.chat import errors, wire
from eijax.chat.client import ChatClient
from fake_endpoint import FakeEndpoint, Fault, chat_body

MESSAGES = [{'role': 'user', 'content': 'Hi.'}]
SOUND = json.dumps(chat_body('Héllo 你好.'), ensure_ascii=False)


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 0.01)


def make_client(endpoint, **settings):
  return ChatClient([endpoint.url], 'm', **{'max_retries': 2, 'timeout_secs': 5, 'concurrency': 2} | settings)


def ask(*script, **settings):
  with FakeEndpoint(script=script) as endpoint, make_client(endpoint, **settings) as client:
    return client.complete(MESSAGES, max_tokens=100)


@pytest.mark.parametrize(
    'body, content_type',
    [
        (SOUND.encode(), 'application/json'),
        (SOUND.encode(), 'application/json; charset=latin-1'),  # It says so, and is UTF-8.
        (SOUND.encode(), 'text/html; charset=no-such-thing'),
        (SOUND.encode('utf-8-sig'), 'application/json'),
        (SOUND.encode('utf-16'), 'application/json'),
        (SOUND.encode('utf-32'), 'application/json'),
        (SOUND.encode('gb18030'), 'application/json; charset="GB18030"'),
        (b'\n \n' + SOUND.encode() + b'\n\n', 'application/json'),  # Blanks that keep the connection alive.
        (json.dumps(chat_body('Héllo 你好.')).encode(), 'application/json'),
    ],
)
def test_charsets(body, content_type):
  result = ask(Fault(body=body, headers={'Content-Type': content_type}))
  assert (result.text, result.retries) == ('Héllo 你好.', 0)


def test_half_a_character_does_not_spoil_the_rest():
  body = json.dumps(chat_body('XY ok')).encode().replace(b'XY', '你'.encode()[:2])
  assert ask(Fault(body=body)).text == '� ok'


def test_gzip():
  body = gzip.compress(SOUND.encode())
  assert ask(Fault(body=body, headers={'Content-Encoding': 'gzip'})).text == 'Héllo 你好.'


@pytest.mark.parametrize(
    'change',
    [
        lambda body: body.replace('"completion_tokens": 7', '"completion_tokens": NaN'),
        lambda body: body.replace('"completion_tokens": 7', '"completion_tokens": -Infinity, "cost": 1e999'),
        lambda body: body.replace('"completion_tokens": 7', f'"completion_tokens": {"9" * 5000}'),
        lambda body: body.replace('{"completion_tokens": 7}', '[1]'),
        lambda body: body.replace('{"completion_tokens": 7}', 'null'),
        lambda body: body.replace('{', '{"choices": [], "usage": 5, ', 1),  # Of equal keys the last counts.
        lambda body: body.replace('{', '{"deep": ' + '[' * 200 + ']' * 200 + ', ', 1),
        lambda body: body.replace('"finish_reason": "stop"', '"finish_reason": 3'),
        lambda body: body.replace('"finish_reason": "stop"', '"index": "0", "logprobs": NaN'),
    ],
)
def test_nonsense_beside_the_text_does_not_matter(change):
  body = change(SOUND)
  assert body != SOUND
  result = ask(Fault(body=body.encode()))
  assert (result.text, result.retries) == ('Héllo 你好.', 0)
  json.dumps(dict(result.usage), allow_nan=False)  # Can be written down.


@pytest.mark.parametrize(
    'body',
    [
        chat_body(17), chat_body(True), chat_body(1.5), {'choices': [chat_body('x')['choices']]}, {'choices': {'0': 1}},
        {'choices': [None]}, {'choices': [{'message': None}]}, {'choices': 'none'}, {'message': 'queue full'},
        {'choices': [{'message': {'content': ''}, 'finish_reason': 'error', 'error': {'code': 502, 'message': 'upstream'}}]},
        {'error': 'busy'}, {'error': {'code': '503', 'message': 'busy'}}, {'error': {'status': 429, 'message': 'slow'}},
        b'{"choices": ' + b'[' * 100_000, b'[' * 100_000, b'null', b'NaN', b'"text"', b'data: {"choices": []}\n\n',
        b'{"error": ' + b'[' * 800 + b']' * 800 + b'}',
    ],
)
def test_body_without_an_answer_is_asked_for_again(body):
  assert ask(Fault(body=body), Fault(body=body)).retries == 2
  with pytest.raises((errors.BadAnswer, errors.ServerFailed, errors.RateLimited)) as caught:
    ask(*[Fault(body=body)] * 3)
  assert len(str(caught.value)) < 700 and '\n' not in str(caught.value)


@pytest.mark.parametrize(
    'code, error_type', [(401, errors.Unauthorized), ('403', errors.Unauthorized), (404, errors.BadRequest)])
def test_error_object_in_a_200_counts_as_its_status(code, error_type):
  with pytest.raises(error_type):
    ask(Fault(body={'error': {'code': code, 'message': 'no'}}))


@pytest.mark.parametrize(
    'given, read',
    [('LENGTH', 'length'), ('max_tokens', 'length'), ('MAX_OUTPUT_TOKENS', 'length'), ('end_turn', 'stop'), ('eos', 'stop'),
     ('tool_calls', 'tool_calls'), (None, '')],
)
def test_finish_reasons_have_one_name(given, read):
  assert ask(Fault(body=chat_body('x', finish_reason=given))).finish_reason == read


REFUSALS = [
    chat_body(None, refusal="I can't help with that."), chat_body('', refusal='No.'),
    chat_body([{'type': 'refusal', 'refusal': 'No.'}]), chat_body('I was about', finish_reason='content_filter'),
    chat_body('', finish_reason='SAFETY'), chat_body(None, finish_reason='refusal'),
]


@pytest.mark.parametrize('body', REFUSALS)
def test_refusal_is_asked_again_twice_and_then_typed(body):
  assert ask(Fault(body=body), Fault(body=body)).retries == 2
  with FakeEndpoint(script=[Fault(body=body)] * 9) as endpoint, make_client(endpoint, max_retries=8) as client:
    with pytest.raises(errors.Refused, match='declines to answer') as caught:
      client.complete(MESSAGES)
  assert len(endpoint.requests) == 3 and caught.value.kind == 'Refused'


def test_refusal_field_beside_an_answer_is_no_refusal():
  assert ask(Fault(body=chat_body('Yes.', refusal=None))).text == 'Yes.'
  assert ask(Fault(body=chat_body('Yes.', refusal=''))).text == 'Yes.'


@pytest.mark.parametrize(
    'error',
    [
        {'code': 'content_filter', 'message': 'The response was filtered'},
        {'code': 'data_inspection_failed', 'message': 'Input data may contain inappropriate content.'},
        {'type': 'invalid_request_error', 'code': 'content_policy_violation', 'message': 'no'},
    ],
)
def test_filter_of_the_request_is_a_refusal_and_final(error):
  with FakeEndpoint(script=[Fault(400, {'error': error})]) as endpoint, make_client(endpoint) as client:
    with pytest.raises(errors.Refused):
      client.complete(MESSAGES, response_format={'type': 'json_object'})
  assert len(endpoint.requests) == 1


HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n'


@pytest.mark.parametrize(
    'raw',
    [
        (HEAD + b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"cho\r\n',),
        (HEAD + b'Transfer-Encoding: chunked\r\n\r\nzz\r\n{"cho\r\n',),
        (HEAD + b'Content-Length: 4000\r\n\r\n', b'{"choices": [{'),
        (HEAD + b'Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\nnot gzip!',),
        (HEAD + b'Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n' + gzip.compress(SOUND.encode())[:20],),
        (b'HTTP/1.1 200',), (b'\x00\xff\xfe',), (b'HTTP/1.1 abc Hm\r\n\r\n',), (b'SSH-2.0-server\r\n',),
    ],
    ids=range(9),
)
def test_answer_that_breaks_off_is_typed_and_retried(raw):
  assert ask(Fault(raw=raw), Fault(raw=raw)).retries == 2
  with pytest.raises((errors.Unreachable, errors.BadAnswer)):
    ask(*[Fault(raw=raw)] * 3)


def test_slow_drip_meets_the_deadline():
  drip = (HEAD + b'Content-Length: 900\r\n\r\n', *[b' '] * 100)
  start = time.monotonic()
  with pytest.raises(errors.Unreachable, match='had not finished its answer after 0.3 s'):
    ask(Fault(raw=drip, interval_secs=0.03), timeout_secs=2, deadline_secs=0.3, max_retries=0)
  assert 0.3 <= time.monotonic() - start < 2
  chunks = (HEAD + b'Transfer-Encoding: chunked\r\n\r\n', *[b'1\r\n \r\n'] * 100)
  with pytest.raises(errors.Unreachable, match='had not finished'):
    ask(Fault(raw=chunks, interval_secs=0.03), timeout_secs=2, deadline_secs=0.3, max_retries=0)
  # Slow, but there in time.
  blanks = (HEAD + b'Connection: close\r\n\r\n', b' ', b' ', SOUND.encode())
  assert ask(Fault(raw=blanks, interval_secs=0.05), timeout_secs=2, deadline_secs=5).text == 'Héllo 你好.'


def test_gigantic_body_is_not_read_to_its_end(monkeypatch):
  monkeypatch.setattr(wire, 'MAX_BODY_BYTES', 1 << 20)
  endless = (HEAD + b'Connection: close\r\n\r\n', *[b'x' * (1 << 18)] * 400)
  with pytest.raises(errors.BadAnswer, match='answered with more than 1 MiB'):
    ask(Fault(raw=endless), max_retries=0)
  bomb = gzip.compress(b' ' * (64 << 20))
  with pytest.raises(errors.BadAnswer, match='more than 1 MiB'):
    ask(Fault(body=bomb, headers={'Content-Encoding': 'gzip'}), max_retries=0)


def test_connection_is_sound_after_every_failure():
  raw = (HEAD + b'Content-Length: 4000\r\n\r\n', b'{"choices": [{')
  with FakeEndpoint(script=[Fault(raw=raw), Fault(503, b'<html>'), Fault(body=b'[')]) as endpoint:
    with make_client(endpoint, max_retries=3) as client:
      assert client.complete(MESSAGES).retries == 3
      before = endpoint.num_connections
      assert [client.complete(MESSAGES).text for _ in range(5)] == ['Hello.'] * 5
  assert endpoint.num_connections == before == 2  # The broken one, and one that lasts.


def test_retry_after_in_milliseconds():
  start = time.monotonic()
  assert ask(Fault(429, b'', {'retry-after-ms': '150'})).retries == 1
  assert 0.15 <= time.monotonic() - start < 2
