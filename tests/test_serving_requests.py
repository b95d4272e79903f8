"""What a policy server refuses, in which words, and that nothing is ignored."""

import json
import socket

import pytest
import requests

from eijax.sampling.config import SamplingConfig
from eijax.serving.api_errors import ApiError
from eijax.serving.chat_request import parse
import serving_cases as cases
from serving_cases import NAME, Playback, running, served, user

KEY = 'a-secret-key'
DEFAULTS = SamplingConfig(temperature=0.7, top_p=0.9, top_k=20, max_new_tokens=50)


def read(**fields):
  body = {'model': NAME, 'messages': user('Hello?'), **fields}
  return parse(json.dumps(body).encode(), defaults=DEFAULTS, thinking=False, max_choices=4)


def test_defaults_and_all_fields():
  request = read()
  assert request.sampling == DEFAULTS and request.messages == (('user', 'Hello?'),)
  assert (request.n, request.stream, request.seed, request.stop, request.logprobs) == (1, False, None, (), False)
  request = read(n=3, stream=True, stream_options={'include_usage': True}, temperature=1.5, top_p=0.5, top_k=-1, max_tokens=7,
                 seed=2**40, stop=['a', 'b'], logprobs=True)
  assert request.sampling == SamplingConfig(temperature=1.5, top_p=0.5, top_k=0, max_new_tokens=7)
  assert (request.n, request.stream, request.include_usage, request.seed) == (3, True, True, 2**40)
  assert request.stop == ('a', 'b') and request.logprobs
  assert read(max_completion_tokens=9).sampling.max_new_tokens == 9
  assert read(temperature=0).sampling == SamplingConfig(temperature=1.0, top_k=1, max_new_tokens=50)
  assert read(stop='END').stop == ('END',)


def test_what_asks_for_nothing_is_taken():
  assert read(
      user='me', metadata={}, presence_penalty=0, frequency_penalty=0.0, logit_bias={}, tools=[], tool_choice='none',
      response_format={'type': 'text'}, seed=None, stop=None, temperature=None, top_logprobs=None,
      chat_template_kwargs={'enable_thinking': False}) == read()


def test_messages_as_clients_send_them_back():
  echoed = {'role': 'assistant', 'content': 'Yes.', 'refusal': None, 'tool_calls': None, 'reasoning_content': 'Hm.', 'annotations': []}
  parts = [{'type': 'text', 'text': 'a'}, {'type': 'text', 'text': 'b'}]
  request = read(messages=[
      {'role': 'developer', 'content': 'S'}, {'role': 'user', 'content': parts}, echoed, {'role': 'assistant', 'content': None},
      {'role': 'user', 'content': '\ud83d half'}])
  assert request.messages == (('system', 'S'), ('user', 'ab'), ('assistant', 'Yes.'), ('assistant', ''), ('user', '? half'))


@pytest.mark.parametrize('fields, param', [
    ({'model': None}, 'model'), ({'model': 3}, 'model'), ({'messages': None}, 'messages'), ({'messages': []}, 'messages'),
    ({'messages': 'hi'}, 'messages'), ({'messages': ['hi']}, 'messages[0]'),
    ({'messages': [{'role': 'tool', 'content': 'x'}]}, 'messages[0].role'), ({'messages': [{'content': 'x'}]}, 'messages[0].role'),
    ({'messages': [{'role': ['user'], 'content': 'x'}]}, 'messages[0].role'),
    ({'messages': [*user('x'), {'role': 'user'}]}, 'messages[1].content'),
    ({'messages': [{'role': 'user', 'content': 7}]}, 'messages[0].content'),
    ({'messages': [{'role': 'user', 'content': [{'type': 'image_url', 'image_url': {}}]}]}, 'messages[0].content[0]'),
    ({'messages': [{'role': 'assistant', 'content': 'x', 'tool_calls': [{}]}]}, 'messages[0].tool_calls'),
    ({'n': 0}, 'n'), ({'n': 5}, 'n'), ({'n': True}, 'n'), ({'n': 1.0}, 'n'),
    ({'temperature': -0.1}, 'temperature'), ({'temperature': 2.1}, 'temperature'), ({'temperature': '1'}, 'temperature'),
    ({'temperature': float('nan')}, 'temperature'), ({'temperature': 10**400}, 'temperature'), ({'temperature': True}, 'temperature'),
    ({'top_p': 0}, 'top_p'), ({'top_p': 1.01}, 'top_p'), ({'top_k': -2}, 'top_k'), ({'top_k': 2.5}, 'top_k'),
    ({'max_tokens': 0}, 'max_tokens'), ({'max_tokens': 10**30}, 'max_tokens'), ({'max_completion_tokens': 'many'}, 'max_completion_tokens'),
    ({'max_tokens': 3, 'max_completion_tokens': 4}, 'max_tokens'),
    ({'seed': 1.5}, 'seed'), ({'seed': 2**64}, 'seed'), ({'stream': 'yes'}, 'stream'), ({'stream': 1}, 'stream'),
    ({'stream_options': {'include_usage': True}}, 'stream_options'),
    ({'stream': True, 'stream_options': {'include_usage': 1}}, 'stream_options.include_usage'),
    ({'stop': ''}, 'stop'), ({'stop': ['a'] * 5}, 'stop'), ({'stop': [1]}, 'stop'), ({'stop': 3}, 'stop'),
    ({'logprobs': 3}, 'logprobs'), ({'top_logprobs': 2}, 'top_logprobs'),
    ({'response_format': {'type': 'json_object'}}, 'response_format'), ({'tools': [{}]}, 'tools'),
    ({'presence_penalty': 0.5}, 'presence_penalty'), ({'temprature': 1}, 'temprature'),
    ({'chat_template_kwargs': {'enable_thinking': True}}, 'chat_template_kwargs.enable_thinking'),
    ({'chat_template_kwargs': {'x': True}}, 'chat_template_kwargs.x'), ({'chat_template_kwargs': 3}, 'chat_template_kwargs'),
])
def test_bad_fields_are_refused_by_name(fields, param):
  with pytest.raises(ApiError) as caught:
    read(**fields)
  error = caught.value
  assert (error.status, error.param) == (400, param) and param in error.message
  assert error.body['error']['type'] == 'invalid_request_error' and len(error.message) < 300


@pytest.mark.parametrize('body', [b'', b'no json', b'[]', b'"x"', b'\xff\xfe', b'[' * 100_000, b'{"n": ' + b'9' * 5000 + b'}'])
def test_bodies_that_are_no_request(body):
  with pytest.raises(ApiError) as caught:
    parse(body, defaults=DEFAULTS, thinking=False, max_choices=4)
  assert (caught.value.status, caught.value.code) == (400, 'invalid_json')


@pytest.fixture(scope='module')
def server(tmp_path_factory):
  policy = cases.load_policy(tmp_path_factory.mktemp('policy'))
  with running(served(policy), Playback(policy.chat_format.response('Yes.')), api_key=KEY) as server:
    yield server


def post(server, body, key=KEY, path='/chat/completions', **headers):
  return requests.post(server.url + path, data=body, timeout=20, headers={'Authorization': f'Bearer {key}', **headers})


def test_errors_over_http(server):
  good = json.dumps({'model': NAME, 'messages': user('Hm?')})
  assert post(server, good).status_code == 200
  for response, status, code in (
      (post(server, good, key='wrong'), 401, 'invalid_api_key'), (post(server, good, key=KEY.upper()), 401, 'invalid_api_key'),
      (requests.post(f'{server.url}/chat/completions', data=good, timeout=20), 401, 'invalid_api_key'),
      (requests.get(f'{server.url}/models', timeout=20), 401, 'invalid_api_key'),
      (post(server, good.replace(NAME, 'gpt')), 404, 'model_not_found'), (post(server, good, path='/completions'), 404, 'not_found'),
      (post(server, 'nothing'), 400, 'invalid_json'), (post(server, good[:-1] + ', "n": 99}'), 400, 'invalid_value'),
      (post(server, b'x' * (5 << 20)), 413, None), (post(server, iter([b'x'])), 411, None),
      (requests.put(f'{server.url}/models', timeout=20), 501, None)):
    error = response.json()['error']
    assert (response.status_code, error['code']) == (status, code)
    assert error['message'] and error['type'] and KEY not in response.text
  assert requests.get(server.url.replace('/v1', '/healthz'), timeout=20).status_code == 200  # For probes, which have no key.


def test_bad_requests_leave_the_connection_open(server):
  with requests.Session() as session:
    session.headers['Authorization'] = f'Bearer {KEY}'
    for body, status in (('nothing', 400), (json.dumps({'model': NAME, 'messages': user('Hm?')}), 200), ('{}', 400)):
      response = session.post(f'{server.url}/chat/completions', data=body, timeout=20)
      assert response.status_code == status and response.headers.get('Connection') != 'close'


def test_noise_instead_of_http_is_refused(server):
  with socket.create_connection(server.server_address[:2], timeout=10) as raw:
    raw.sendall(b'\x16\x03\x01 what\r\n\r\n')
    assert b'Bad HTTP' in raw.recv(400)
  with socket.create_connection(server.server_address[:2], timeout=10) as raw:
    raw.sendall(b'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n')
    assert b' 411 ' in raw.recv(400)
