"""Endpoints that do not take a part of the request: it is put otherwise, and remembered."""

import pytest

from eijax.chat import client as client_lib
from eijax.chat import context, errors
from eijax.chat.client import ChatClient
from eijax.rollouts.endpoint_policy import EndpointPolicy, without_oldest_round
from eijax.rollouts.ports import ReplyRequest
from eijax.simulator.answer_format import RESPONSE_FORMAT
from fake_endpoint import FakeEndpoint, Fault, chat_body

MESSAGES = [{'role': 'user', 'content': 'Hi.'}]
SETTINGS = {'temperature': 0.7, 'max_tokens': 1000, 'seed': 5, 'response_format': RESPONSE_FORMAT}


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 0.01)


class Picky:
  """Answers like a server that minds certain fields. `minds(request)` gives an error or None."""

  def __init__(self, minds, status=400):
    self._minds, self._status = minds, status
    self._endpoint = FakeEndpoint(self._answer)
    self.url, self.requests = self._endpoint.url, self._endpoint.requests
    send = self._endpoint._send

    def with_status(handler, status, body, headers):
      send(handler, body.pop('status', status) if isinstance(body, dict) else status, body, headers)

    self._endpoint._send = with_status

  def _answer(self, request):
    error = self._minds(request)
    if error is None:
      return chat_body('Yes.')
    return {'status': self._status} | (error if 'detail' in error else {'error': error})

  def __enter__(self):
    return self

  def __exit__(self, *exc_info):
    self._endpoint.close()


def make_client(*endpoints, **settings):
  return ChatClient([e.url for e in endpoints], 'm', **{'max_retries': 2, 'timeout_secs': 5, 'concurrency': 4} | settings)


def openai(name, words):
  return lambda request: {'message': words, 'type': 'invalid_request_error', 'param': name, 'code': 'unsupported_parameter'} if name in request else None


REFUSALS = {
    'max_tokens by OpenAI': (
        openai('max_tokens', "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."),
        400, {'max_completion_tokens': 1000}, {'max_tokens'}, 'max_completion_tokens for max_tokens',
    ),
    'temperature by OpenAI': (
        openai('temperature', "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) value is supported."),
        400, {'max_tokens': 1000}, {'temperature'}, 'temperature not sent',
    ),
    'seed by a validator': (
        lambda request: {'detail': [{'type': 'extra_forbidden', 'loc': ['body', 'seed'], 'msg': 'Extra inputs are not permitted'}]}
        if 'seed' in request else None,
        422, {'temperature': 0.7}, {'seed'}, 'seed not sent',
    ),
    'seed in words': (
        lambda request: {'message': 'Unrecognized request argument supplied: seed'} if 'seed' in request else None,
        400, {'temperature': 0.7}, {'seed'}, 'seed not sent',
    ),
    'json_schema by name': (
        lambda request: {'message': "response_format type 'json_schema' is not supported, use json_object"}
        if request.get('response_format', {}).get('type') == 'json_schema' else None,
        400, {'response_format': {'type': 'json_object'}}, set(), 'response_format json_object',
    ),
    'any response_format': (
        lambda request: {'message': 'This response_format type is unavailable now'} if 'response_format' in request else None,
        400, {'temperature': 0.7}, {'response_format'}, 'response_format not sent',
    ),
    'response_format without a word of it': (
        lambda request: {'message': 'Invalid request'} if 'response_format' in request else None,
        400, {'temperature': 0.7}, {'response_format'}, 'response_format not sent',
    ),
    'a cap by OpenAI': (
        lambda request: {'message': 'max_tokens is too large: 1000. This model supports at most 512 completion tokens, whereas you provided 1000.'}
        if request['max_tokens'] > 512 else None,
        400, {'max_tokens': 512}, set(), 'max_tokens at most 512',
    ),
    'a cap as a range': (
        lambda request: {'message': 'Range of max_tokens should be [1, 512]'} if request['max_tokens'] > 512 else None,
        400, {'max_tokens': 512}, set(), 'max_tokens at most 512',
    ),
    'a cap in words': (
        lambda request: {'message': '`max_tokens` must be less than or equal to `512`, the maximum value for this model'}
        if request['max_tokens'] > 512 else None,
        400, {'max_tokens': 512}, set(), 'max_tokens at most 512',
    ),
}


@pytest.mark.parametrize('name', REFUSALS)
def test_what_is_not_taken_is_put_otherwise_and_remembered(name):
  minds, status, there, gone, said = REFUSALS[name]
  with Picky(minds, status) as endpoint, make_client(endpoint) as client:
    first = client.complete(MESSAGES, **SETTINGS)
    num_first = len(endpoint.requests)
    second = client.complete(MESSAGES, **SETTINGS)
    assert client.adaptations == {endpoint.url: (said,)}
  assert first.text == second.text == 'Yes.' and first.retries == second.retries == 0
  assert 2 <= num_first <= 3 and len(endpoint.requests) == num_first + 1
  for request in endpoint.requests[num_first - 1 :]:
    assert there.items() <= request.items() and not gone & request.keys()
    assert request['messages'] == MESSAGES and request['model'] == 'm'
  assert second.max_tokens == there.get('max_tokens', there.get('max_completion_tokens', 1000))


def test_several_refusals_of_one_endpoint_and_none_of_the_other():
  minds = [REFUSALS[name][0] for name in ('max_tokens by OpenAI', 'temperature by OpenAI', 'seed in words', 'any response_format')]
  with Picky(lambda request: next(filter(None, (mind(request) for mind in minds)), None)) as picky:
    with FakeEndpoint() as easy, make_client(picky, easy) as client:
      for _ in range(4):
        client.complete(MESSAGES, **SETTINGS)
      assert list(client.adaptations) == [picky.url] and len(client.adaptations[picky.url]) == 4
  assert set(picky.requests[-1]) == {'model', 'messages', 'max_completion_tokens'}
  assert all(request.keys() >= SETTINGS.keys() for request in easy.requests) and len(easy.requests) == 2
  assert len(picky.requests) == 7  # Five refusals of the first request (two of the format), then two that pass.


@pytest.mark.parametrize(
    'words',
    ['temperature must lie in 0..2', 'The model `m` does not exist', 'top_p is not supported', 'max_tokens must be at least 2000'],
)
def test_refusal_of_something_else_is_final(words):
  settings = SETTINGS | {'response_format': None, 'extra_body': {'top_p': 0.9}}
  with Picky(lambda request: {'message': words}) as endpoint, make_client(endpoint) as client:
    with pytest.raises(errors.BadRequest, match=words):
      client.complete(MESSAGES, **settings)
    assert len(endpoint.requests) == 1 and client.adaptations == {}
    # With a response_format it may have been that; if it was not, nothing is learned.
    with pytest.raises(errors.BadRequest, match=words):
      client.complete(MESSAGES, **SETTINGS)
    assert len(endpoint.requests) == 4 and client.adaptations == {}


def test_server_that_breaks_on_a_schema_is_asked_without_one():
  with FakeEndpoint() as endpoint, make_client(endpoint, max_retries=8) as client:
    endpoint.answer = lambda request: {'error': {'code': 500}} if 'response_format' in request else 'Yes.'
    assert client.complete(MESSAGES, **SETTINGS).text == 'Yes.'
    assert client.complete(MESSAGES, **SETTINGS).retries == 0


def test_bad_weather_does_not_take_the_schema_away():
  with FakeEndpoint() as endpoint, make_client(endpoint, max_retries=8) as client:
    client.complete(MESSAGES, **SETTINGS)
    endpoint.script += [Fault(500)] * 5
    assert client.complete(MESSAGES, **SETTINGS).retries == 5
    assert client.adaptations == {} and all('response_format' in request for request in endpoint.requests)


# Complaints of common servers about 3,000 tokens of messages and 2,000 to come, in a context of 4,096.
TOO_LONG = {
    'OpenAI': "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (3000 in the messages, 2000 in the completion).",
    'vLLM': "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is 4096 tokens and your request has 3000 input tokens (2000 > 4096 - 3000).",
    'vLLM, newer': "You passed 3000 input tokens and requested 2000 output tokens. However, the model's context length is only 4096 tokens.",
    'TGI': '`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 3000 `inputs` tokens and 2000 `max_new_tokens`',
    'Anthropic': 'input length and `max_tokens` exceed context limit: 3000 + 2000 > 4096, decrease input length or `max_tokens` and try again',
}


@pytest.mark.parametrize('server', TOO_LONG)
def test_max_tokens_shrinks_to_the_room_that_is_left(server):
  error = {'message': TOO_LONG[server]}
  with Picky(lambda request: error if request['max_tokens'] > 1096 else None) as endpoint, make_client(endpoint) as client:
    result = client.complete(MESSAGES, max_tokens=2000)
  assert result.max_tokens == 1096 and [r['max_tokens'] for r in endpoint.requests] == [2000, 1096]


def test_without_numbers_max_tokens_is_halved():
  error = {'message': 'Please reduce the length of the prompt.'}
  with Picky(lambda request: error if request['max_tokens'] > 300 else None) as endpoint, make_client(endpoint) as client:
    assert client.complete(MESSAGES, max_tokens=2000).max_tokens == 250
    assert client.complete(MESSAGES, max_tokens=200).max_tokens == 200
  assert [r['max_tokens'] for r in endpoint.requests] == [2000, 1000, 500, 250, 200]


@pytest.mark.parametrize(
    'words, context_tokens, prompt_tokens',
    [
        ("This model's maximum context length is 4096 tokens. However, your messages resulted in 9000 tokens.", 4096, None),
        ('prompt is too long: 210000 tokens > 200000 maximum', 200000, 210000),
        ('request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it', 4096, 5000),
        ("This model's maximum context length is 4,096 tokens. However, you requested 6,000 tokens (4,090 in the messages, 1,910 in the completion).", 4096, 4090),
    ],
)
def test_messages_that_do_not_fit_are_typed_with_numbers(words, context_tokens, prompt_tokens):
  room = context.read_room(words)
  assert (room.context, room.prompt) == (context_tokens, prompt_tokens)
  with Picky(lambda request: {'message': words}) as endpoint, make_client(endpoint) as client:
    with pytest.raises(errors.ContextTooLong) as caught:
      client.complete(MESSAGES, max_tokens=1910)
    assert (caught.value.context_tokens, caught.value.prompt_tokens) == (context_tokens, prompt_tokens)
    assert len(endpoint.requests) <= 6
    with pytest.raises(errors.ContextTooLong):
      client.complete(MESSAGES)  # No limit that could shrink.


def talk(num_rounds, opens=False):
  messages = [{'role': 'system', 'content': 'You are Bo.'}]
  messages += [] if opens else [{'role': 'user', 'content': 'Hello?'}]
  for number in range(num_rounds):
    messages += [{'role': 'assistant', 'content': f'a{number}'}, {'role': 'user', 'content': f'u{number}'}]
  return messages


def test_oldest_rounds_give_way_and_the_role_sheet_stays():
  def minds(request):
    words = sum(len(message['content']) for message in request['messages'])
    return {'message': f"maximum context length is 30 tokens, {words} in the messages"} if words > 20 else None

  with Picky(minds) as endpoint, make_client(endpoint) as chat:
    policy = EndpointPolicy(chat, temperature=0.7, max_tokens=10)
    asked = talk(4)
    reply = policy.submit([ReplyRequest(episode_key='a', messages=asked, seed=1, round=5)])[0].result()
    assert reply.text == 'Yes.' and not reply.truncated
    assert reply.sample.num_dropped == 6 and reply.sample.max_tokens == 10 and reply.sample.finish_reason == 'stop'
    assert endpoint.requests[-1]['messages'] == [asked[0], *asked[7:]]
    too_long = [{'role': 'system', 'content': 'x' * 99}, {'role': 'user', 'content': 'u'}]
    with pytest.raises(errors.ContextTooLong):
      policy.submit([ReplyRequest(episode_key='b', messages=too_long, seed=1, round=1)])[0].result()
  assert asked == talk(4), 'the talk itself stays whole'


def test_without_oldest_round():
  assert without_oldest_round(talk(2)) == [talk(2)[0], *talk(2)[3:]]
  assert without_oldest_round(talk(2, opens=True)) == [talk(2)[0], *talk(2, opens=True)[2:]]
  assert without_oldest_round(talk(0)) is None and without_oldest_round(talk(0, opens=True)) is None


def test_length_is_recorded():
  with FakeEndpoint(lambda request: chat_body('<think>hm</think>And then', finish_reason='length')) as endpoint:
    with make_client(endpoint) as chat:
      policy = EndpointPolicy(chat, temperature=0.7, max_tokens=10)
      reply = policy.submit([ReplyRequest(episode_key='a', messages=talk(0), seed=1, round=1)])[0].result()
  assert reply.truncated and reply.sample.finish_reason == 'length' and reply.sample.usage == {'completion_tokens': 7}
