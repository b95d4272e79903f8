"""python -m eijax.serve as a user runs it."""

import contextlib
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys

from absl import flags
import openai
import pytest
import requests

from eijax import serve
from eijax.errors import EijaxError, UsageError
from eijax.text.load import load_tokenizer
from eijax.training.local_policy import describe_local_policy
from saved_run import write_run
from test_convert import model_folder

ROOT = pathlib.Path(__file__).resolve().parent.parent
KEY = 'a-secret-key'
# One device, and programs that compile fast.
ENVIRONMENT = {**os.environ, 'PYTHONPATH': str(ROOT),
               'XLA_FLAGS': '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'}


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('saved'), steps=(2, 5))[0]


def parsed(*arguments):
  values = flags.FlagValues()
  serve.define(values)
  values(['serve', *arguments])
  return values


@contextlib.contextmanager
def running(*arguments, **environment):
  process = subprocess.Popen(
      [sys.executable, '-m', 'eijax.serve', '--port=0', *arguments], env={**ENVIRONMENT, **environment},
      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  try:
    ready, _, _ = select.select([process.stdout], [], [], 240)
    line = process.stdout.readline() if ready else ''
    assert line.startswith('serving '), process.communicate(timeout=20)[1] if process.poll() is not None else line
    yield process, line.split()[1], line.split()[-1]
  finally:
    process.kill()
    process.communicate()


def test_it_serves_until_a_signal_and_finishes_what_runs(run):
  with running(f'--model={run}', '--num_slots=2', '--decode_steps=1', '--temperature=1.9', '--max_tokens=9',
               EIJAX_SERVE_API_KEY=KEY) as (process, name, url):
    assert name == 'run@5' and url.startswith('http://127.0.0.1:')
    with pytest.raises(openai.AuthenticationError):
      openai.OpenAI(base_url=url, api_key='wrong').models.list()
    api = openai.OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=60)

    def ask(**settings):
      return api.chat.completions.create(model=name, messages=[{'role': 'user', 'content': 'The dog was red.'}], **settings)

    assert 0 < ask().usage.completion_tokens <= 9
    whole = ask(seed=3, max_tokens=250)
    stream = iter(ask(seed=3, max_tokens=250, stream=True))
    text = next(stream).choices[0].delta.content
    process.send_signal(signal.SIGTERM)
    text += ''.join(chunk.choices[0].delta.content or '' for chunk in stream)
    assert text == whole.choices[0].message.content
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert not out and 'Traceback' not in err and KEY not in err


@pytest.mark.slow
def test_a_second_signal_does_not_wait(run):
  with running(f'--model={run}@2', '--num_slots=1', '--context=1500', '--decode_steps=1', '--served_model_name=tiny') as (
      process, name, url):
    assert name == 'tiny'
    api = openai.OpenAI(base_url=url, api_key='none', max_retries=0, timeout=60)
    # One after the other on one slot: thousands of calls, which outlast the signals.
    stream = iter(api.chat.completions.create(
        model=name, messages=[{'role': 'user', 'content': 'Hm?'}], n=4, temperature=2, max_tokens=1400, stream=True))
    next(stream)
    process.send_signal(signal.SIGINT)
    while requests.get(url.replace('/v1', '/healthz'), timeout=20).status_code != 503:
      pass
    process.send_signal(signal.SIGINT)
    with pytest.raises(openai.APIError, match='shutting down'):
      for _ in stream:
        pass
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_hugging_face_folder_is_served(tmp_path):
  model = model_folder(tmp_path / 'model')
  with running(f'--model={model}', '--num_slots=2', '--context=200', '--max_tokens=9') as (_, name, url):
    assert name == 'model'
    api = openai.OpenAI(base_url=url, api_key='none', max_retries=0, timeout=60)
    for words, tokens in (('The dog was red.', 9), ('The dog was red and it barked. ' * 4, 60)):
      talk = [{'role': 'user', 'content': words}]
      prompt = load_tokenizer(model).chat_format(thinking=True).prompt(talk)
      # Alone and in a batch with another, its prompt within one chunk that is longer than the context.
      first, second = (api.chat.completions.create(model=name, messages=talk, n=n, temperature=0, max_tokens=tokens)
                       for n in (1, 2))
      assert 100 > first.usage.prompt_tokens == len(prompt) and 0 < first.usage.completion_tokens <= tokens
      assert {choice.message.content for choice in second.choices} == {first.choices[0].message.content}


def test_bad_flags_exit_2_with_one_line():
  result = subprocess.run([sys.executable, '-m', 'eijax.serve'], env=ENVIRONMENT, capture_output=True, text=True, timeout=240,
                          check=False)
  assert result.returncode == 2 and '--model is missing' in result.stderr
  assert result.stderr.count('\n') == 1 and not result.stdout


@pytest.mark.parametrize('arguments, kind, words', [
    (['--model=nowhere'], UsageError, 'is no folder'),
    (['--model=RUN', '--host=0.0.0.0'], UsageError, 'EIJAX_SERVE_API_KEY is not set'),
    (['--model=RUN', '--max_tokens=320'], UsageError, 'must be below the context of 320'),
    (['--model=RUN', '--top_p=1.5'], UsageError, r'top_p=1.5 must lie in \(0, 1\]'),
    (['--model=RUN', '--num_slots=3'], UsageError, 'num_slots=3 must be divisible'),  # By the eight devices of the tests.
    (['--model=RUN@3'], EijaxError, 'no checkpoint of step 3'),
    (['--model=RUN', '--port=TAKEN'], EijaxError, 'cannot be opened'),
])
def test_what_cannot_be_served_is_refused(run, monkeypatch, arguments, kind, words):
  monkeypatch.delenv(serve.KEY_VARIABLE, raising=False)
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    filled = [word.replace('RUN', str(run)).replace('TAKEN', str(taken.getsockname()[1])) for word in arguments]
    with pytest.raises(kind, match=words):
      serve.serve(parsed(*filled))


def test_flags_reach_shapes_and_sampling(run):
  saved = describe_local_policy(str(run))
  shapes, sampling = serve.settings(parsed(), saved)
  assert (shapes.num_slots, shapes.spans, shapes.chunks, sampling) == (16, (192, 320), (96,), saved.sampling)
  shapes, sampling = serve.settings(parsed(
      '--num_slots=3', '--context=250', '--temperature=0.3', '--top_p=0.5', '--top_k=7', '--max_tokens=200'), saved)
  assert (shapes.num_slots, shapes.spans) == (3, (192, 250))
  assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_new_tokens) == (0.3, 0.5, 7, 200)
  # A context too short for the policy's own answers bounds them; one that was asked for is refused.
  assert serve.settings(parsed('--context=8'), saved)[1].max_new_tokens == 7


def test_keys(monkeypatch):
  monkeypatch.delenv(serve.KEY_VARIABLE, raising=False)
  assert serve.api_key('127.0.0.1') is serve.api_key('localhost') is serve.api_key('::1') is None
  for host in ('0.0.0.0', '', 'example.org', '::'):
    with pytest.raises(UsageError, match='can be reached from other machines'):
      serve.api_key(host)
  monkeypatch.setenv(serve.KEY_VARIABLE, f' {KEY} ')
  assert serve.api_key('0.0.0.0') == KEY
  monkeypatch.setenv(serve.KEY_VARIABLE, 'two words')
  with pytest.raises(UsageError) as caught:
    serve.api_key('127.0.0.1')
  assert 'two words' not in str(caught.value)
