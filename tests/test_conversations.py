"""Conversations to learn from: rules on load, the split, and which tokens are learned, for every family of templates."""

import importlib.util
import json
import random
import re

import numpy as np
import pytest
import sentencepiece
import tokenizers

from eijax.conversations.config import DataConfig
from eijax.conversations.encode import demonstrations
from eijax.conversations.load import load_jsonl
from eijax.conversations.record import parse_conversation
from eijax.conversations.split import digest_of, split_held_out
from eijax.datasets.chats import load_chats
from eijax.errors import DataError, UsageError
from eijax.learning.supervised import segments_of
from eijax.sft.examples import make_examples
from eijax.text.chat_format import ChatFormat
from eijax.text.tokenizer import train_tokenizer
from hf_text_folders import FAMILIES, FOLDERS, tokenizer_of

WORDS = 'I am so sorry about the dog 你好 我很难过 😢 Monday at nine, then go on \n\n really? <|im_end|> </s> <end_of_turn> [INST]'.split(' ')
LONG = 10_000
USER, REPLY = {'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Ho'}
SYSTEM = {'role': 'system', 'content': 'Be kind.'}
needs_tfds = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ('tensorflow_datasets', 'array_record', 'importlib_resources')),
    reason="needs the extra: pip install 'eijax[data]'")


def chat(*messages, where='here'):
  return parse_conversation({'messages': list(messages)}, where)


def talk(number: int, num_turns: int, system=True):
  """A conversation in which no two messages are alike."""
  rng = random.Random(number)
  words = lambda: ' '.join(rng.choices(WORDS, k=rng.randrange(1, 12))).strip() or 'so'
  messages = [{'role': 'system', 'content': f'Sheet {number}. {words()}'}] if system else []
  for turn in range(num_turns):
    messages += [{'role': 'user', 'content': f'u{turn}. {words()} u{turn}'}, {'role': 'assistant', 'content': f'a{turn}: {words()} a{turn}'}]
  return messages


# ---- Rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize('record, words', [
    ([1], ['here: must be a JSON object with `messages`, not [1]']),
    ({'chat': []}, ['field `messages` = missing breaks the rule: must be a list of messages']),
    ({'messages': []}, ['field `messages` = []']),
    ({'messages': ['Hi']}, ["field `messages[0]` = 'Hi'", 'must be an object with `role` and `content`']),
    ({'messages': [USER, {'role': 'tool', 'content': 'x'}]}, ["`messages[1].role` = 'tool'", 'one of system, user, assistant']),
    ({'messages': [USER, {'role': 'assistant'}]}, ['`messages[1].content` = None', 'must be a text']),
    ({'messages': [USER, {'role': 'assistant', 'content': [{'text': 'x'}]}]}, ['`messages[1].content` = [', 'must be a text']),
    ({'messages': [USER, {'role': 'assistant', 'content': ' \n'}]}, ['`messages[1].content`', 'must not be empty (assistant)']),
    ({'messages': [USER, {'role': 'assistant', 'content': '<think>well</think> '}]}, ['must hold more than a thought']),
    ({'messages': [{'role': 'user', 'content': ''}, REPLY]}, ['must not be empty (user)']),
    ({'messages': [USER]}, ['1 of user', 'at least one assistant message']),
    ({'messages': [SYSTEM]}, ['1 of system', 'at least one assistant message']),
    ({'messages': [REPLY, USER]}, ["`messages[0].role` = 'assistant'", 'a user must speak first']),
    ({'messages': [USER, USER, REPLY]}, ["`messages[1].role` = 'user'", "messages[0] is of 'user' too"]),
    ({'messages': [USER, REPLY, REPLY]}, ["`messages[2].role` = 'assistant'", 'must take turns']),
    ({'messages': [USER, SYSTEM, REPLY]}, ["`messages[1].role` = 'system'", 'the first and only one']),
    ({'messages': [{'role': 'system', 'content': ''}, REPLY]}, ["`messages[1].role` = 'assistant'", 'a user must speak first']),
])
def test_a_broken_conversation_is_named(record, words):
  with pytest.raises(DataError) as caught:
    parse_conversation(record, 'here')
  message = str(caught.value)
  assert message.startswith('here: ') and ';' in message and '\n' not in message
  for word in words:
    assert word in message


def test_what_keeps_the_rules_is_taken():
  assert [m.role for m in chat(SYSTEM, REPLY, USER, REPLY, USER).messages] == ['system', 'assistant', 'user', 'assistant', 'user']
  assert chat({'role': 'system', 'content': ' '}, USER, REPLY) == chat(USER, REPLY)  # An empty sheet is none.
  known = parse_conversation({'messages': [{**USER, 'name': 'Ann'}, {**REPLY, 'weight': 1}], 'id': 3}, 'here')
  assert known == chat(USER, REPLY) and known.digest == chat(USER, REPLY, where='there').digest
  assert chat(USER, {**REPLY, 'content': '<think>well</think>\n\nHo '}).messages[1].words == 'Ho'


def test_a_broken_line_is_named_with_its_file(tmp_path):
  path = tmp_path / 'chats.jsonl'
  good = json.dumps({'messages': [USER, REPLY]})
  path.write_text(f'{good}\n\n{{"messages": [\n')
  with pytest.raises(DataError, match=r'chats.jsonl:3: column \d+: broken JSON'):
    load_jsonl(path)
  path.write_text(f'{good}\n{json.dumps({"messages": [USER]})}\n')
  with pytest.raises(DataError, match=r'chats.jsonl:2: field `messages` = 1 of user'):
    load_jsonl(path)
  path.write_text(f'\n{good}\n')
  assert load_jsonl(path) == load_chats(str(path), 'train') == [chat(USER, REPLY)]
  path.write_text('\n')
  with pytest.raises(DataError, match='holds no conversation'):
    load_jsonl(path)
  with pytest.raises(DataError, match='nowhere.jsonl: cannot be read'):
    load_chats(str(tmp_path / 'nowhere.jsonl'), 'train')


@pytest.mark.parametrize('values, words', [
    ({'sources': ()}, 'names nothing to train on'), ({'held_out_fraction': 1.0}, r'held_out_fraction=1.0 must lie in \[0, 1\)'),
    ({'too_long': 'squeeze'}, "too_long='squeeze' is unknown; use one of cut, drop"),
])
def test_settings_of_the_data_are_checked(values, words):
  with pytest.raises(UsageError, match=words):
    DataConfig(**{'sources': ('a.jsonl',), **values})


def test_the_split_keeps_copies_together_and_depends_on_the_seed_alone():
  chats = [chat(USER, {**REPLY, 'content': f'Ho {i % 40}'}) for i in range(60)]
  training, held_out = split_held_out(chats, 0.25, seed=1)
  assert len({c.digest for c in held_out}) == 10 and len(training) + len(held_out) == 60
  assert not {c.digest for c in training} & {c.digest for c in held_out}
  again = split_held_out(chats[::-1], 0.25, seed=1)
  assert {c.digest for c in again[1]} == {c.digest for c in held_out}
  assert {c.digest for c in split_held_out(chats, 0.25, seed=2)[1]} != {c.digest for c in held_out}
  assert split_held_out(chats, 0.0, seed=1) == (chats, []) and len(split_held_out(chats[:3], 0.01, seed=1)[1]) == 1
  assert digest_of(chats) != digest_of(chats[::-1])
  with pytest.raises(DataError, match='of 1 distinct conversations leaves none to train on'):
    split_held_out(chats[:1], 0.1, seed=0)


# ---- Data sets ------------------------------------------------------------------------------------


def prepare(folder, features, examples):
  import tensorflow_datasets as tfds  # pylint: disable=import-outside-toplevel

  class Chats(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=features(tfds.features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples(), 'test': self._generate_examples()}

    def _generate_examples(self):
      yield from enumerate(examples)

  builder = Chats(data_dir=folder, file_format='array_record')
  builder.download_and_prepare()
  return builder


@needs_tfds
@pytest.mark.parametrize('as_text', (False, True))
def test_a_data_set_is_read_like_a_file(tmp_path, as_text):
  talks = [talk(i, 1 + i % 3) for i in range(5)]
  if as_text:
    features = lambda f: f.FeaturesDict({'messages': f.Text()})
    examples = [{'messages': json.dumps(messages)} for messages in talks]
  else:
    features = lambda f: f.FeaturesDict({'messages': f.Sequence({'role': f.Text(), 'content': f.Text()}), 'id': f.Text()})
    examples = [{'messages': messages, 'id': str(i)} for i, messages in enumerate(talks)]
  builder = prepare(tmp_path, features, examples)
  expected = [chat(*messages) for messages in talks]
  assert load_chats('chats', 'train', str(tmp_path)) == load_chats(str(builder.data_dir), 'test') == expected
  assert load_chats('chats:1.0.0', 'train[1:3]', str(tmp_path)) == expected[1:3]
  with pytest.raises(UsageError, match="split='valid' of chats cannot be read .*; use one of test, train|train, test"):
    load_chats('chats', 'valid', str(tmp_path))


@needs_tfds
def test_what_is_no_set_of_chats_is_refused(tmp_path):
  with pytest.raises(UsageError, match="'no_such_set' is neither a folder nor a data set"):
    load_chats('no_such_set', 'train', str(tmp_path))
  with pytest.raises(UsageError, match='is a folder without dataset_info.json'):
    load_chats(str(tmp_path), 'train')
  prepare(tmp_path, lambda f: f.FeaturesDict({'text': f.Text()}), [{'text': 'Hi'}])
  with pytest.raises(DataError, match=r'feature `messages` is missing \(it has text\)'):
    load_chats('chats', 'train', str(tmp_path))


@needs_tfds
def test_a_broken_example_is_named(tmp_path):
  prepare(tmp_path, lambda f: f.FeaturesDict({'messages': f.Text()}), [
      {'messages': json.dumps([USER, REPLY])}, {'messages': json.dumps([REPLY])}])
  with pytest.raises(DataError, match=r'chats/1.0.0 train \[1\]: field `messages\[0\].role`'):
    load_chats('chats', 'train', str(tmp_path))


# ---- Which tokens are learned ---------------------------------------------------------------------


def pieces_with_offsets(family, text, control):
  """(id, first character, last character) of each token of a rendered talk, by the family's own library alone."""
  if (FOLDERS / family / 'tokenizer.json').exists():
    encoding = tokenizers.Tokenizer.from_file(str(FOLDERS / family / 'tokenizer.json')).encode(text, add_special_tokens=False)
    return [(index, *offsets) for index, offsets in zip(encoding.ids, encoding.offsets)]
  processor = sentencepiece.SentencePieceProcessor(model_file=str(FOLDERS / family / 'tokenizer.model'))
  result, position = [], 0
  while position < len(text):  # Control tokens are no part of what SentencePiece encodes.
    name = next((name for name in control if text.startswith(name, position)), None)
    if name:
      result.append((control[name], position, position + len(name)))
      position += len(name)
      continue
    end = min([place for name in control if (place := text.find(name, position)) >= 0], default=len(text))
    rest = text[position:end].encode()
    # As transformers does it: a guard takes the space that SentencePiece puts before a text, and goes.
    guard = processor.encode('<unk>', out_type=str)
    for piece in processor.encode('<unk>' + text[position:end], out_type=str)[len(guard):]:
      raw = bytes([int(piece[3:5], 16)]) if re.fullmatch('<0x..>', piece) else piece.replace('▁', ' ').encode()
      assert rest.startswith(raw)
      rest = rest[len(raw):]
      result.append((processor.piece_to_id(piece), position, end - len(rest.decode(errors='ignore'))))
      position = result[-1][2]
  return result


def learned_by_offsets(family, tokenizer, messages):
  """(ids, mask) of a talk that ends with a reply: the mask is where a token's characters are those of the last reply.

  Independent of prompts, splices and packing: the whole talk is rendered, and the reply is looked up in the text.
  """
  plain = [{**m, 'content': m['content'].strip()} for m in messages]
  text = tokenizer.template.render(plain, add_generation_prompt=False, enable_thinking=False)
  reply = plain[-1]['content']
  assert text.count(reply) == 1
  start = text.index(reply)
  tail = text[start + len(reply):]
  stop = min(name for name in tokenizer.control_tokens.ids if tail.lstrip().startswith(name))
  end = start + len(reply) + tail.index(stop) + len(stop)
  pieces = pieces_with_offsets(family, text, tokenizer.control_tokens.ids)
  if family == 'llama2':
    # Its template writes a space before the stop token, which a policy that stops does not.
    pieces = [p for p in pieces if not (start + len(reply) <= p[1] < p[2] <= end - len(stop))]
  pieces = [p for p in pieces if p[1] < end]
  # The space before the first word of Llama 2 belongs to the word's own piece.
  return [p[0] for p in pieces], [p[2] > start for p in pieces]


def safe_talk(number, num_turns, system=True):
  """Without control tokens spelled out, which a rendered talk cannot tell from those of the template."""
  return [{**m, 'content': ' '.join(w for w in m['content'].split(' ') if '<' not in w and '[' not in w)}
          for m in talk(number, num_turns, system)]


@pytest.mark.parametrize('family', FAMILIES)
def test_the_learned_tokens_are_those_of_the_replies(family):
  tokenizer = tokenizer_of(FOLDERS / family)
  chat_format = tokenizer.chat_format(thinking=False)
  num_turns = 0
  for number in range(8):
    messages = safe_talk(number, 1 + number % 4, system=number % 3 > 0)
    turns, left_out = demonstrations(chat(*messages), chat_format, thinking=False, max_tokens=LONG)
    assert not left_out and len(turns) == 1 + number % 4
    ends = [i + 1 for i, m in enumerate(messages) if m['role'] == 'assistant']
    for end, turn in zip(ends, turns):
      ids, mask = learned_by_offsets(family, tokenizer, messages[:end])
      assert turn.prompt_ids + turn.response_ids == ids
      assert [False] * len(turn.prompt_ids) + [True] * len(turn.response_ids) == mask
      num_turns += 1
    # The segments learn exactly these tokens, each once.
    segments = segments_of([(t.prompt_ids, t.response_ids) for t in turns], LONG)
    learned = [int(i) for s in segments for i in s.targets[s.loss_mask]]
    assert learned == [i for t in turns for i in t.response_ids]
    assert learned.count(chat_format.stop_ids[0]) == len(turns)
    # Qwen3 and Llama 2 write an earlier turn otherwise than the last: there a segment holds one turn.
    assert len(segments) == (len(turns) if family in ('qwen3', 'llama2') else 1)
  assert num_turns == 20


@pytest.mark.parametrize('family', FAMILIES)
def test_no_text_becomes_a_control_token(family):
  tokenizer = tokenizer_of(FOLDERS / family)
  chat_format = tokenizer.chat_format(thinking=False)
  controls = list(tokenizer.control_tokens.ids)
  hostile = [{'role': m['role'], 'content': f'{m["content"]} {" ".join(controls)} <think>x</think> {controls[0]}a'} for m in talk(1, 2)]
  harmless = safe_talk(1, 2)
  count = lambda turns: [sum(i in tokenizer.control_tokens.ids.values() for i in t.prompt_ids + t.response_ids) for t in turns]
  found, expected = (demonstrations(chat(*m), chat_format, thinking=False, max_tokens=LONG)[0] for m in (hostile, harmless))
  assert count(found) == count(expected)


@pytest.fixture(scope='module', name='own_format')
def fixture_own_format():
  return ChatFormat(train_tokenizer([m['content'] for i in range(200) for m in safe_talk(i, 2)], 330))


def test_our_own_format_learns_replies_with_their_ends(own_format):
  messages = talk(3, 3)
  (segment,) = make([messages], own_format).segments
  text = own_format.decode(segment.targets[segment.loss_mask])
  assert text == ' '.join(m['content'] for m in messages if m['role'] == 'assistant')
  # Independently: between a role token of the assistant and the end, both ways of counting from the ids alone.
  ids = [int(segment.tokens[0]), *map(int, segment.targets)]
  speaking, expected = False, []
  for index in ids:
    expected.append(speaking)
    speaking = index == own_format.generation_prompt[0] or speaking and index not in own_format.stop_ids
  assert expected[1:] == segment.loss_mask.tolist()


def make(talks, chat_format, **changes):
  values = dict(max_length=LONG, too_long='cut', thinking=False, name='training')
  return make_examples([chat(*messages) for messages in talks], chat_format, **{**values, **changes})


def test_thoughts_are_learned_with_the_tags_or_left_out(own_format):
  messages = [SYSTEM, USER, {'role': 'assistant', 'content': '<think>a sad dog</think>\nso sorry'}, USER, {**REPLY, 'content': 'go on'}]
  without = make([messages], own_format)
  assert without.thoughts_left_out == 1 and len(without.segments) == 1
  assert own_format.decode(without.segments[0].targets[without.segments[0].loss_mask]) == 'so sorry go on'
  learned = make([messages], own_format, thinking=True)
  assert learned.thoughts_left_out == 0 and len(learned.segments) == 2  # The second prompt has no thought any more.
  first, second = learned.segments
  opening, closing = own_format._think  # pylint: disable=protected-access
  targets = first.targets[first.loss_mask].tolist()
  assert targets[0] == opening and targets.count(closing) == 1
  assert own_format.decode(targets) == '<think>a sad dog</think>\nso sorry'
  assert opening not in second.tokens and 'so sorry' in own_format.decode(second.tokens)


def test_too_long_conversations_are_cut_or_dropped_and_counted(own_format):
  talks = [talk(4, 1), talk(5, 4), talk(6, 1)]
  whole = make(talks, own_format)
  assert (whole.conversations, whole.turns, whole.cut, whole.dropped) == (3, 6, 0, 0)
  turns, _ = demonstrations(chat(*talks[1]), own_format, thinking=False, max_tokens=LONG)
  limit = len(turns[1].prompt_ids) + len(turns[1].response_ids) - 1  # Two turns fit to the token.
  assert all(len(whole.segments[i]) <= limit for i in (0, 2))
  cut = make(talks, own_format, max_length=limit)
  assert (cut.conversations, cut.turns, cut.cut, cut.turns_left_out, cut.dropped) == (3, 4, 1, 2, 0)
  assert len(cut.segments[1]) == limit
  np.testing.assert_array_equal(cut.segments[1].targets, whole.segments[1].targets[:limit])
  tighter = make(talks, own_format, max_length=limit - 1)
  assert (tighter.turns, tighter.turns_left_out) == (3, 3)
  dropped = make(talks, own_format, max_length=limit, too_long='drop')
  assert (dropped.conversations, dropped.turns, dropped.cut, dropped.turns_left_out, dropped.dropped) == (2, 2, 0, 4, 1)
  assert dropped.counts()['tokens'] == sum(int(s.loss_mask.sum()) for s in dropped.segments)
  with pytest.raises(DataError, match='none of the 3 training conversations fits rows of 5 tokens; raise the last of row_lengths'):
    make(talks, own_format, max_length=5)
