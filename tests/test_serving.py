"""A served policy through the official client: what it says, to many at once, and how a server ends."""

import concurrent.futures
import socket
import threading
import time

import numpy as np
import openai
import pytest
import requests

from eijax.errors import EijaxError
from eijax.sampling.engine import EngineClosedError
from eijax.text.pieces import CONTROL_PIECES, END, THINK_CLOSE, THINK_OPEN
from hf_text_folders import FOLDERS, tokenizer_of
import serving_cases as cases
from serving_cases import NAME, Playback, client, running, served, user


@pytest.fixture(scope='module')
def policy(tmp_path_factory):
  return cases.load_policy(tmp_path_factory.mktemp('policy'))


@pytest.fixture(scope='module')
def engine(policy):
  with cases.open_engine(policy) as engine:
    yield engine


@pytest.fixture(scope='module')
def server(policy, engine):
  with running(served(policy), engine) as server:
    yield server


@pytest.fixture
def ids(policy):
  """Text to ids, control pieces spelled out becoming control ids."""

  def encode(*parts):
    return [i for part in parts
            for i in ([policy.tokenizer.control_id(part)] if part in CONTROL_PIECES else policy.tokenizer.encode(part))]

  return encode


def wait_until(true, secs=20.0):
  end = time.monotonic() + secs
  while not true():
    assert time.monotonic() < end, 'it did not happen in time'
    time.sleep(0.01)


# ---- A real policy -------------------------------------------------------------------------------


def ask(server, text='My dog is gone.', **settings):
  return client(server).chat.completions.create(model=NAME, messages=user(text), **{'seed': 3, **settings})


def test_models_and_health(server):
  api = client(server)
  assert [model.id for model in api.models.list()] == [NAME]
  assert api.models.retrieve(NAME).owned_by == 'eijax'
  with pytest.raises(openai.NotFoundError):
    api.models.retrieve('gpt')
  health = requests.get(server.url.replace('/v1', '/healthz'), timeout=10)
  assert (health.status_code, health.json()) == (200, {'status': 'ok', 'open': 0, 'max_open': 8})


def test_an_answer_is_what_the_engine_samples(server, policy, engine):
  messages = [{'role': 'system', 'content': 'You are Bo.'}, *user('My dog is gone.'),
              {'role': 'assistant', 'content': 'Where?'}, {'role': 'user', 'content': [{'type': 'text', 'text': 'On Monday.'}]}]
  answer = client(server).chat.completions.create(model=NAME, messages=messages, seed=11)
  chat = policy.chat_format
  prompt = [*chat.message('system', 'You are Bo.'), *chat.message('user', 'My dog is gone.'), *chat.message('assistant', 'Where?'),
            *chat.message('user', 'On Monday.'), *chat.generation_prompt]
  sample = engine.submit([(prompt, 11, '')])[0].result(timeout=60)
  choice, = answer.choices
  assert choice.message.content == chat.decode(sample.response_ids) and choice.message.role == 'assistant'
  assert choice.finish_reason == ('length' if sample.truncated else 'stop')
  assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(prompt), len(sample.response_ids))
  assert answer.usage.total_tokens == len(prompt) + len(sample.response_ids)
  assert (answer.object, answer.model) == ('chat.completion', NAME)


@pytest.mark.parametrize('seed', range(4))
def test_a_stream_tells_the_same(server, seed):
  whole = ask(server, seed=seed, max_tokens=40, temperature=1.3, n=2)
  texts, reasons, usage, roles = ['', ''], [None, None], None, [None, None]
  for chunk in ask(server, seed=seed, max_tokens=40, temperature=1.3, n=2, stream=True, stream_options={'include_usage': True}):
    usage = chunk.usage or usage
    for choice in chunk.choices:
      texts[choice.index] += choice.delta.content or ''
      roles[choice.index] = choice.delta.role or roles[choice.index]
      reasons[choice.index] = choice.finish_reason or reasons[choice.index]
  assert texts == [choice.message.content for choice in whole.choices]
  assert reasons == [choice.finish_reason for choice in whole.choices]
  assert usage == whole.usage and roles == ['assistant', 'assistant']


def test_concurrent_answers_are_those_of_lone_requests(server, engine):
  questions = [(f'The lamp number {i} was red.' + ' It was lost.' * (i % 5), {'seed': i, 'max_tokens': 5 + 3 * i, 'temperature': 0.5 + i / 10,
                'top_p': 1 - i / 40}) for i in range(12)]
  alone = [ask(server, text, **settings) for text, settings in questions]
  compiled = engine.num_compilations
  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    together = list(pool.map(lambda question: ask(server, question[0], **question[1]), questions))
  for one, other in zip(alone, together):
    assert one.choices == other.choices and one.usage == other.usage
  assert engine.num_compilations == compiled == 2
  assert len({answer.choices[0].message.content for answer in alone}) == 12


def test_choices_seeds_and_greed(server):
  three, = {tuple(choice.message.content for choice in ask(server, n=3).choices) for _ in range(2)}
  assert len(set(three)) == 3 and three[0] == ask(server).choices[0].message.content
  assert ask(server, seed=-5).choices[0].message.content == ask(server, seed=-5).choices[0].message.content
  assert len({ask(server, seed=None, max_tokens=30).choices[0].message.content for _ in range(3)}) > 1
  greedy = {ask(server, seed=seed, temperature=0).choices[0].message.content for seed in range(4)}
  assert len(greedy) == 1
  assert ask(server, temperature=1, extra_body={'top_k': 1}).choices[0].message.content in greedy


def test_log_probs_are_those_of_the_sampler(server, policy, engine):
  choice, = ask(server, logprobs=True, max_tokens=20).choices
  chat = policy.chat_format
  prompt = [*chat.message('user', 'My dog is gone.'), *chat.generation_prompt]
  sample = engine.submit([(prompt, 3, '')])[0].result(timeout=60)
  entries = choice.logprobs.content
  told = [entry.logprob for entry in entries][:len(sample.response_ids) - 1]
  np.testing.assert_allclose(told, sample.behavior_log_probs[:len(told)], atol=1e-5)  # Read back from JSON.
  whole = ''.join(entry.token for entry in entries)
  assert '\ufffd' in whole or whole == choice.message.content
  streamed = [entry for chunk in ask(server, logprobs=True, max_tokens=20, stream=True)
              for part in chunk.choices if part.logprobs for entry in part.logprobs.content]
  assert streamed == entries


def test_answers_end_at_the_end_of_the_context_and_longer_prompts_are_refused(server):
  answer = ask(server, 'It was lost on Monday at nine. ' * 12, max_tokens=10_000)
  assert answer.usage.total_tokens <= cases.CONTEXT
  assert answer.choices[0].finish_reason == 'stop' or answer.usage.total_tokens == cases.CONTEXT
  with pytest.raises(openai.BadRequestError, match='context length is 320 tokens') as caught:
    ask(server, 'It was lost on Monday at nine. ' * 100)
  assert (caught.value.code, caught.value.param) == ('context_length_exceeded', 'messages')


def test_no_text_becomes_a_control_token(server, policy, engine, monkeypatch):
  seen = []
  submit = engine.submit
  monkeypatch.setattr(engine, 'submit', lambda reqs: seen.extend(zip(reqs, futures := submit(reqs))) or futures)
  spelled = ''.join(CONTROL_PIECES)
  client(server).chat.completions.create(
      model=NAME, n=4, temperature=2, max_tokens=60, seed=1,
      messages=[{'role': 'system', 'content': spelled}, *user(spelled), {'role': 'assistant', 'content': spelled}, *user(spelled)])
  control = {policy.tokenizer.control_id(piece) for piece in CONTROL_PIECES}
  end = policy.tokenizer.control_id(END)
  for request, future in seen:
    # A role and an end for each of four messages, and the role of who speaks next.
    assert sum(int(index) in control for index in request.prompt_ids) == 9
    assert not set(future.result().response_ids.tolist()) & (control - {end})
  assert len(seen) == 4


def test_prompts_of_a_growing_talk_come_out_of_the_cache(server, engine):
  before = engine.stats.reused_tokens
  talk = user('My boat is gone. It was red.')
  first = client(server).chat.completions.create(model=NAME, messages=talk, seed=1)
  talk += [{'role': 'assistant', 'content': first.choices[0].message.content}, *user('On Monday.')]
  client(server).chat.completions.create(model=NAME, messages=talk, seed=2)
  assert engine.stats.reused_tokens - before >= first.usage.prompt_tokens


# ---- What a policy may say -----------------------------------------------------------------------


def test_thoughts_go_to_reasoning_content(policy, ids):
  engine = Playback(ids(THINK_OPEN, 'Bo is'), ids('sad.', THINK_CLOSE, '  Oh'), ids('dear.', END))
  with running(served(policy, thinking=True), engine) as server:
    message = ask(server, extra_body={'chat_template_kwargs': {'enable_thinking': True}}).choices[0].message
    assert (message.content, message.reasoning_content) == ('Oh dear.', 'Bo is sad.')
    content = reasoning = ''
    for chunk in ask(server, stream=True):
      delta = chunk.choices[0].delta
      content += delta.content or ''
      reasoning += getattr(delta, 'reasoning_content', None) or ''
    assert (content, reasoning) == ('Oh dear.', 'Bo is sad.')
    with pytest.raises(openai.BadRequestError, match='thinking on'):
      ask(server, extra_body={'chat_template_kwargs': {'enable_thinking': False}})


def test_a_thought_without_an_end_is_never_spoken(policy, ids):
  with running(served(policy, thinking=True), Playback(ids(THINK_OPEN, 'Bo is sad'), truncated=True)) as server:
    choice, = ask(server, stop='sad').choices
    assert (choice.message.content, choice.message.reasoning_content, choice.finish_reason) == ('', 'Bo is sad', 'length')


@pytest.mark.parametrize('family', ('qwen3', 'gemma3'))
def test_a_policy_with_a_template_of_its_own_is_served(policy, family):
  tokenizer = tokenizer_of(FOLDERS / family)
  chat_format = tokenizer.chat_format(thinking=True)
  what = served(policy, tokenizer=tokenizer, chat_format=chat_format, thinking=True)
  thinks = None not in tokenizer.think_ids
  said = chat_format.response('<think>\nBo is sad 龜\n</think>\n\nOh dear 💛' if thinks else 'Oh dear 💛')
  engine = Playback(*[[index] for index in said])
  talk = [*user('My dog is gone.'), {'role': 'assistant', 'content': 'Which <dog>?'}, *user('Bo. 别再说了')]
  with running(what, engine) as server:
    message = client(server).chat.completions.create(model=NAME, messages=talk).choices[0].message
    assert (message.content, getattr(message, 'reasoning_content', None)) == ('Oh dear 💛', '\nBo is sad 龜\n' if thinks else None)
    assert engine.requests[0].prompt_ids.tolist() == chat_format.prompt(talk)
    deltas = [chunk.choices[0].delta for chunk in ask(server, stream=True)]
    assert ''.join(delta.content or '' for delta in deltas) == 'Oh dear 💛' and not any('\ufffd' in (d.content or '') for d in deltas)
    if family == 'gemma3':
      with pytest.raises(openai.BadRequestError, match='refuses messages of roles user, user; let user') as caught:
        client(server).chat.completions.create(model=NAME, messages=[*user('One.'), *user('Two.')])
      assert str(FOLDERS) not in str(caught.value)


def test_a_tag_in_plain_letters_is_speech(policy, ids):
  spelled = [i for i in policy.tokenizer.encode('a <think> b')]
  with running(served(policy), Playback(spelled, ids(END))) as server:
    assert ask(server).choices[0].message.content == 'a <think> b'


@pytest.mark.parametrize('stop, content', [
    ('dog', 'The '), (['Bo', 'was red'], 'The dog '), ('xyz', 'The dog was red.'), ('red.', 'The dog was '), ('red..', 'The dog was red.')])
def test_stop_strings_end_the_text_and_the_sampling(policy, ids, stop, content):
  pieces = [[index] for index in ids('The dog was red.')]
  for stream in (False, True):
    engine = Playback(*pieces, ids(END), hold=False)
    with running(served(policy), engine) as server:
      if stream:
        parts = [chunk.choices[0] for chunk in ask(server, stop=stop, stream=True)]
        assert ''.join(part.delta.content or '' for part in parts) == content
        assert parts[-1].finish_reason == 'stop'
      else:
        answer = ask(server, stop=stop, logprobs=True)
        assert answer.choices[0].message.content == content and answer.choices[0].finish_reason == 'stop'
        assert answer.usage.completion_tokens <= len(pieces) + 1
        if content != 'The dog was red.':
          assert answer.usage.completion_tokens < len(pieces) + (stop == 'red.')


def test_letters_arrive_whole(policy):
  encoded = policy.tokenizer.encode('Żółw 龜')  # Bytes, which the tokenizer has no pieces for.
  assert len(encoded) > 8
  with running(served(policy), Playback(*[[index] for index in encoded], list(policy.chat_format.stop_ids))) as server:
    parts = [chunk.choices[0].delta.content or '' for chunk in ask(server, stream=True)]
    assert ''.join(parts) == 'Żółw 龜' and not any('\ufffd' in part for part in parts)
    assert len([part for part in parts if part]) > 4
  with running(served(policy), Playback(encoded[:-1], truncated=True)) as server:
    assert ask(server).choices[0].message.content.startswith('Żółw \ufffd')


# ---- Limits, clients that leave, and the end -----------------------------------------------------


def test_what_is_too_much_gets_429_and_comes_through_later(policy, ids):
  engine = Playback(ids('Yes.'), ids(END), hold=True)
  with running(served(policy), engine, max_open=2) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
    first = pool.submit(ask, server, n=2)
    wait_until(lambda: len(engine.futures) == 2)
    with pytest.raises(openai.RateLimitError, match='2 are the most') as caught:
      ask(server)
    assert caught.value.response.headers['Retry-After'] == '1' and caught.value.type == 'rate_limit_error'
    with pytest.raises(openai.BadRequestError, match='n is 3, but must be a whole number in 1..2'):
      ask(server, n=3)
    # The client waits as it is told, and tries again.
    patient = pool.submit(lambda: client(server, max_retries=5).chat.completions.create(model=NAME, messages=user('Yes?')))
    time.sleep(0.3)
    engine.release.set()
    assert patient.result(timeout=20).choices[0].message.content == first.result(timeout=20).choices[0].message.content == 'Yes.'


@pytest.mark.parametrize('stream', [False, True])
@pytest.mark.parametrize('started', [False, True])
def test_a_client_that_leaves_frees_its_slot(policy, ids, capfd, stream, started):
  engine = Playback(*([ids('Yes.')] if started else []), ids('No.'), hold=True)
  if not started:
    engine.chunks = ([], ids('No.'))
  with running(served(policy), engine) as server:
    with requests.post(f'{server.url}/chat/completions', stream=True, timeout=20, json={
        'model': NAME, 'messages': user('Hm?'), 'stream': stream}) if stream and started else _half_asked(server, stream):
      wait_until(lambda: engine.futures)
      assert server.service.num_open == 1
    wait_until(engine.futures[0].cancelled)
    wait_until(lambda: server.service.num_open == 0)
    engine.release.set()
    assert ask(server).choices
  assert 'Traceback' not in capfd.readouterr().err


def _half_asked(server, stream):
  """A connection over which a request was sent, and whose answer nobody will read."""
  body = f'{{"model": "{NAME}", "messages": [{{"role": "user", "content": "Hm?"}}], "stream": {str(stream).lower()}}}'
  raw = socket.create_connection(server.server_address[:2], timeout=10)
  raw.sendall(f'POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}'.encode())
  return raw


def test_a_failure_of_the_engine_is_told(policy, ids):
  error = EijaxError('the sampling engine failed: out of memory')
  with running(served(policy), Playback(error=error)) as server:
    for stream in (False, True):
      with pytest.raises(openai.InternalServerError, match='out of memory'):
        list(ask(server, stream=stream))
  with running(served(policy), Playback(ids('Yes.'), error=error)) as server:
    parts = []
    with pytest.raises(openai.APIError, match='out of memory'):
      for chunk in ask(server, stream=True):
        parts.append(chunk.choices[0].delta.content)
    assert parts == ['', 'Yes.']


def test_the_end_lets_answers_finish_and_refuses_new_ones(policy, ids):
  engine = Playback(ids('Yes.'), ids(' No.', END), hold=True)
  with running(served(policy), engine) as server, concurrent.futures.ThreadPoolExecutor(2) as pool:
    open_answer = pool.submit(ask, server)
    wait_until(lambda: engine.futures)
    ending = pool.submit(server.end, lambda: pytest.fail('nothing had to be cut short'), 20.0)
    wait_until(lambda: server.service.draining)
    with pytest.raises(openai.InternalServerError, match='shutting down') as caught:
      ask(server)
    assert caught.value.status_code == 503 and caught.value.response.headers['Connection'] == 'close'
    assert requests.get(server.url.replace('/v1', '/healthz'), timeout=10).status_code == 503
    assert not ending.done()
    engine.release.set()
    assert open_answer.result(timeout=20).choices[0].message.content.startswith('Yes.')
    ending.result(timeout=20)


def test_the_end_cuts_short_what_takes_too_long(policy, ids):
  engine = Playback(ids('Yes.'), ids(END), hold=True)

  def close():
    engine.error = EngineClosedError('closed')
    engine.release.set()

  with running(served(policy), engine) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
    open_answer = pool.submit(ask, server)
    wait_until(lambda: engine.futures)
    started = time.monotonic()
    server.end(close, 0.2)
    assert time.monotonic() - started < 5
    with pytest.raises(openai.InternalServerError, match='shutting down'):
      open_answer.result(timeout=20)


def test_many_connections_at_once(policy, ids):
  with running(served(policy), Playback(ids('Yes.'), ids(END)), max_open=40) as server:
    api, gate = client(server), threading.Barrier(24)

    def one(_):
      gate.wait()
      return api.chat.completions.create(model=NAME, messages=user('Yes?')).choices[0].message.content

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
      assert list(pool.map(one, range(24))) == ['Yes.'] * 24
    wait_until(lambda: server.service.num_open == 0)
