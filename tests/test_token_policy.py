"""TokenPolicy between a runner and a sampler that plays back what it is told."""

from concurrent.futures import Future
import dataclasses

from hf_text_folders import FOLDERS
import numpy as np
import pytest

from eijax.errors import DataError, EijaxError
from eijax.rollouts.ports import ReplyRequest
from eijax.rollouts.token_policy import TokenPolicy
from eijax.text.chat_format import ChatFormat
from eijax.text.contexts import ContextTooLongError
from eijax.text.hf_tokenizer import load_hf_tokenizer
from eijax.text.tokenizer import train_tokenizer

SYSTEM = {'role': 'system', 'content': 'You are Bo.'}
HELLO = {'role': 'user', 'content': 'Hello?'}


@dataclasses.dataclass(frozen=True, eq=False)
class FakeSample:
  prompt_ids: list[int]
  response_ids: np.ndarray
  truncated: bool


class FakeSampler:
  """Answers each slot key with its next line; `None` fails. With `hold`, answers wait for `release`."""

  max_prompt_tokens = 120

  def __init__(self, lines, hold=False):
    self.lines, self.hold, self.calls, self.held = {key: list(own) for key, own in lines.items()}, hold, [], []

  def submit(self, prompts):
    self.calls.append([(list(ids), seed, key) for ids, seed, key in prompts])
    futures = []
    for ids, _, key in prompts:
      future, line = Future(), self.lines[key].pop(0)
      futures.append(future)
      self.held.append((future, line, list(ids)))
    if not self.hold:
      self.release()
    return futures

  def release(self):
    for future, line, ids in self.held:
      if line is None:
        future.set_exception(EijaxError('the device is gone'))
      else:
        response, truncated = line
        future.set_result(FakeSample(ids, np.array(response, np.int32), truncated))
    self.held = []


@pytest.fixture(scope='module')
def tokenizer():
  return train_tokenizer(['Hello? You are Bo. I am so sorry. Go on. Yes.'] * 20, 300)


@pytest.fixture(scope='module')
def chat(tokenizer):
  return ChatFormat(tokenizer)


def request(key, *messages, seed=0, number=1):
  return ReplyRequest(episode_key=key, messages=[SYSTEM, *messages], seed=seed, round=number)


def answered(text, answer):
  return [{'role': 'assistant', 'content': text}, {'role': 'user', 'content': answer}]


def test_sampled_ids_go_back_into_the_next_prompt(chat, tokenizer):
  # Letter by letter, as the text would never be encoded.
  odd = [tokenizer._processor.piece_to_id(f'<0x{byte:02X}>') for byte in b'Yes.']
  text = chat.decode(odd)
  assert text == 'Yes.' and odd != tokenizer.encode(text)
  sampler = FakeSampler({'a': [(odd + [*chat.stop_ids], False), (chat.response('Yes.'), False)], 'b': [(odd, True)]})
  policy = TokenPolicy(chat, sampler)
  first, other = (future.result() for future in policy.submit([request('a', HELLO, seed=5), request('b', HELLO, seed=6)]))
  assert (first.text, first.truncated, other.truncated) == (text, False, True)
  assert first.sample.response_ids.tolist() == odd + [*chat.stop_ids]
  (prompt_a, seed_a, key_a), (prompt_b, seed_b, key_b) = sampler.calls[0]
  assert (seed_a, key_a, seed_b, key_b) == (5, 'a', 6, 'b')
  assert prompt_a == prompt_b == chat.message('system', SYSTEM['content']) + chat.message('user', 'Hello?') + chat.generation_prompt
  policy.submit([request('a', HELLO, *answered(text, 'Go on.'), seed=7, number=2)])
  (prompt, seed, key), = sampler.calls[1]
  assert (seed, key) == (7, 'a')
  assert prompt == prompt_a + odd + [*chat.stop_ids] + chat.message('user', 'Go on.') + chat.generation_prompt


def test_one_failure_ends_its_own_talk_only(chat):
  sampler = FakeSampler({'a': [None], 'b': [(chat.response('Yes.'), False)]})
  long = {'role': 'user', 'content': 'Go on. ' * 100}
  failed, too_long, fine = TokenPolicy(chat, sampler).submit([request('a', HELLO), request('c', long), request('b', HELLO)])
  with pytest.raises(EijaxError, match='the device is gone'):
    failed.result()
  with pytest.raises(ContextTooLongError, match='at most 120'):
    too_long.result()
  assert fine.result().text == 'Yes.'
  assert [key for _, _, key in sampler.calls[0]] == ['a', 'b']  # What cannot be sampled is not asked for.


def test_a_talk_that_the_template_refuses_ends_alone():
  strict = load_hf_tokenizer(FOLDERS / 'gemma3').chat_format(thinking=False)
  sampler = FakeSampler({'a': [(strict.response('Yes.'), False)]})
  refused, fine = TokenPolicy(strict, sampler).submit([request('b', HELLO, HELLO), request('a', HELLO)])
  with pytest.raises(DataError, match='refuses a talk of roles system, user, user'):
    refused.result()
  assert fine.result().text == 'Yes.'


def test_a_thought_that_the_prompt_opened_is_told(chat, tokenizer):
  class Opened(ChatFormat):
    thought_opened = True

  for chat_format, expected in ((chat, False), (Opened(tokenizer), True)):
    sampler = FakeSampler({'a': [(chat.response('Hm.</think>Yes.'), False)]})
    reply, = TokenPolicy(chat_format, sampler).submit([request('a', HELLO)])
    assert reply.result().thought_opened == expected


def test_replies_may_come_later(chat):
  sampler = FakeSampler({'a': [(chat.response('Yes.'), False)]}, hold=True)
  reply, = TokenPolicy(chat, sampler).submit([request('a', HELLO)])
  assert not reply.done()
  sampler.release()
  assert reply.result(timeout=1).text == 'Yes.'


def test_a_phase_forgets_its_talks(chat):
  sampler = FakeSampler({'a': [(chat.response('Yes.'), False)] * 2})
  policy = TokenPolicy(chat, sampler)
  policy.submit([request('a', HELLO)])
  with pytest.raises(ValueError, match='recorded'):  # Another talk under a key in use would mix the two.
    policy.submit([request('a', HELLO)])
  policy.start_phase()
  reply, = policy.submit([request('a', HELLO)])
  assert reply.result().text == 'Yes.'
