"""Tokenizers of Hugging Face folders: text and back, what may be sampled, files, and folders that are refused."""

import json
import random

from chat_talks import LINES, conversations
from hf_text_folders import FAMILIES, FOLDERS, copy_of, tokenizer_of, with_controls
import pytest
import sentencepiece

from eijax.errors import DataError
from eijax.text.hf_files import MOMENT
from eijax.text.hf_tokenizer import load_hf_tokenizer
from eijax.text.load import load_tokenizer
from eijax.text.streaming import TextStream
from eijax.text.tokenizer import Tokenizer, train_tokenizer

TEXTS = ['', ' ', '  two  spaces  ', '\n\nlines\n', 'user\n\n\n\nHello', *(line for kind in LINES.values() for line in kind)]
ENGINES = (*FAMILIES, 'gemma3_sp', 'llama2_legacy')


@pytest.fixture(scope='module')
def tokenizers(tmp_path_factory):
  path = tmp_path_factory.mktemp('folders')
  copy_of('gemma3', path / 'gemma3_sp', without=('tokenizer.json',))
  copy_of('llama2', path / 'llama2_legacy', legacy=True)
  return {name: tokenizer_of(FOLDERS / name if name in FAMILIES else path / name) for name in ENGINES}


@pytest.fixture(params=ENGINES)
def tokenizer(request, tokenizers):
  return tokenizers[request.param]


def test_decoding_gives_the_text_back(tokenizer):
  for text in TEXTS:
    expected = text.replace('e\u0301', 'é') if 'NFC' in json.dumps(tokenizer._files.tokenizer or {}) else text
    assert tokenizer.decode(tokenizer.encode(text)) in (expected, text.removeprefix(' '))


def test_both_files_of_a_model_give_the_same_ids(tokenizers):
  one, other = tokenizers['gemma3'], tokenizers['gemma3_sp']
  assert one.control_tokens.ids == other.control_tokens.ids
  for text in [*TEXTS, 'a <table> and </h1> 1,000']:
    assert one.encode(text) == other.encode(text)
  for talk in conversations():
    assert one.chat_format(thinking=True).prompt(talk) == other.chat_format(thinking=True).prompt(talk)


def test_pieces_of_a_lone_model_are_those_of_sentencepiece(tokenizers):
  tokenizer = tokenizers['gemma3_sp']
  plain = sentencepiece.SentencePieceProcessor(model_file=str(FOLDERS / 'gemma3' / 'tokenizer.model'))
  for text in [*TEXTS, '     five', 'a <table> and </h1> 1,000', '▁▁▁x']:
    assert tokenizer.encode(text) == plain.encode(text)


def test_markup_and_line_breaks_are_text(tokenizers):
  """Gemma declares them beside its control tokens."""
  tokenizer = tokenizers['gemma3']
  vocab = tokenizer._files.tokenizer['model']['vocab']
  assert tokenizer.encode('<table>\n\n') == [vocab['<table>'], vocab['\n\n']]
  assert {vocab['<table>'], vocab['\n\n'], vocab['▁▁']} <= set(tokenizer.sampleable_ids(False))
  for text in ('<start_of_turn>', '<unused3>', '<mask>', '[multimodal]', '<bos>', '<unk>'):
    assert vocab[text] not in tokenizer.encode(text) and tokenizer.decode(tokenizer.encode(text)) == text


def test_markup_that_the_template_writes_is_control(tmp_path):
  folder = copy_of('gemma3', tmp_path / 'x')
  path = folder / 'chat_template.jinja'
  path.write_text(path.read_text(encoding='utf-8') + "{{ '<h1>' if false }}", encoding='utf-8')
  tokenizer = tokenizer_of(folder)
  assert '<h1>' in tokenizer.control_tokens.ids and '<table>' not in tokenizer.control_tokens.ids
  assert tokenizer.control_tokens.ids['<h1>'] not in tokenizer.encode('<h1>')


def test_whole_words_that_are_looked_up_are_no_control_tokens(tmp_path):
  folder = copy_of('gemma3', tmp_path / 'x')
  values = json.loads((folder / 'tokenizer.json').read_text(encoding='utf-8'))
  values['model']['ignore_merges'] = True
  (folder / 'tokenizer.json').write_text(json.dumps(values), encoding='utf-8')
  tokenizer = tokenizer_of(folder)
  assert not set(tokenizer.encode('<start_of_turn>')) & set(tokenizer.control_tokens.ids.values())
  assert tokenizer.decode(tokenizer.encode('<start_of_turn>')) == '<start_of_turn>'


@pytest.mark.parametrize('thinking', [False, True])
def test_sampleable_ids(tokenizer, thinking):
  ids, controls = tokenizer.sampleable_ids(thinking), tokenizer.control_tokens.ids
  chat = tokenizer.chat_format(thinking=thinking)
  allowed = set(chat.stop_ids) | ({controls[tag] for tag in ('<think>', '</think>') if tag in controls} if thinking else set())
  assert allowed <= set(ids)
  assert set(ids) & set(controls.values()) == allowed
  # All of the text is left, and nothing that a larger embedding may hold beyond it.
  assert set(range(tokenizer.vocab_size)) - set(ids) <= set(controls.values()) | {0}
  assert max(ids) < tokenizer.vocab_size and ids == sorted(set(ids))
  rng = random.Random(0)
  for _ in range(100):
    sampled = [index for index in rng.choices(ids, k=20) if index not in allowed]
    assert not set(tokenizer.encode(tokenizer.decode(sampled))) & set(controls.values())


def test_think_tags_are_shown_and_other_controls_are_not(tokenizers):
  tokenizer = tokenizers['qwen3']
  ids = tokenizer.control_tokens.ids
  sampled = [ids['<think>'], *tokenizer.encode('why'), ids['</think>'], *tokenizer.encode(' because'), ids['<|im_end|>'], ids['<|endoftext|>']]
  assert tokenizer.decode(sampled) == '<think>why</think> because'
  assert tokenizer.decode([10**6, *tokenizer.encode('x')]) == 'x'  # A row beyond the vocabulary.
  assert tokenizer.chat_format(thinking=True).response('<think>why</think> because') == sampled[:-1]


def test_text_comes_in_whole_characters(tokenizer):
  rng = random.Random(0)
  texts = [line for kind in LINES.values() for line in kind] + ['𠮷👩\u200d👧 \ufffd 你好']
  ids_of = [tokenizer.encode(text) for text in texts]
  # Also what no text encodes to: characters broken in the middle.
  ids_of += [rng.choices(tokenizer.sampleable_ids(True), k=30) for _ in range(50)] + [tokenizer.encode('Yes 𠮷')[:-1]]
  for ids in ids_of:
    stream = TextStream(tokenizer)
    parts = [stream.add([index]) for index in ids]
    whole = tokenizer.decode(ids)
    assert ''.join([*parts, stream.finish()]) == whole
    assert stream.finish() == ''
  text = 'x𠮷y'
  stream = TextStream(tokenizer)
  parts = [stream.add([index]) for index in tokenizer.encode(text)]
  assert not any('\ufffd' in part for part in parts) and ''.join(parts) == text


def test_our_own_tokenizer_streams_as_well():
  own = train_tokenizer(['Hello? You are Bo.'] * 20, 300)
  stream = TextStream(own)
  assert ''.join([*(stream.add([index]) for index in own.encode('Yes 👍 你')), stream.finish()]) == 'Yes 👍 你'


def test_half_of_a_surrogate_pair_is_a_question_mark(tokenizer):
  assert tokenizer.encode('a\ud83db') == tokenizer.encode('a?b')


def test_a_saved_copy_is_the_same_tokenizer(tokenizer, tmp_path):
  tokenizer.save(tmp_path / 'policy')
  again = load_tokenizer(tmp_path / 'policy')
  # Loaded on another day, the template still tells the day that it told.
  for talk in conversations()[:8]:
    for thinking in (False, True):
      assert again.chat_format(thinking=thinking).prompt(talk) == tokenizer.chat_format(thinking=thinking).prompt(talk)
  assert again.sampleable_ids(True) == tokenizer.sampleable_ids(True)
  for name, content in tokenizer._files.contents.items():
    assert (tmp_path / 'policy' / name).read_bytes() == content
  assert (tmp_path / 'policy' / MOMENT).exists() == ('strftime_now' in tokenizer.template.source)


def test_a_date_line_tells_the_day_of_loading(tokenizers):
  talk = [{'role': 'user', 'content': 'Hi'}]
  fixed, now = tokenizers['llama3'], load_hf_tokenizer(FOLDERS / 'llama3')
  assert 'Today is 01 May 2026' in with_controls(fixed, fixed.chat_format(thinking=False).prompt(talk))
  assert 'Today is 01 May 2026' not in with_controls(now, now.chat_format(thinking=False).prompt(talk))


def test_either_kind_is_loaded(tmp_path):
  own = train_tokenizer(['Hello? You are Bo.'] * 20, 300)
  own.save(tmp_path)
  again = load_tokenizer(tmp_path)
  assert isinstance(again, Tokenizer) and again.model_bytes == own.model_bytes
  assert again.chat_format(thinking=True).prompt([{'role': 'user', 'content': 'Hi'}]) == [
      *own.chat_format(thinking=False).message('user', 'Hi'), *own.chat_format(thinking=False).generation_prompt]
  with pytest.raises(DataError, match='tokenizer.model: the tokenizer cannot be read: No such file'):
    load_tokenizer(tmp_path / 'absent')


@pytest.mark.parametrize('family', FAMILIES)
def test_templates_may_stand_in_other_places(tokenizers, tmp_path, family):
  source = (FOLDERS / family / 'chat_template.jinja').read_text(encoding='utf-8')
  named = [{'name': 'tool_use', 'template': 'none'}, {'name': 'default', 'template': source}]
  talk = conversations()[0]
  for number, template in enumerate((source, named)):
    folder = copy_of(family, tmp_path / str(number), without=('chat_template.jinja',), chat_template=template)
    assert tokenizer_of(folder).chat_format(thinking=True).prompt(talk) == tokenizers[family].chat_format(thinking=True).prompt(talk)
  (folder / 'chat_template.jinja').write_text('{{ raise_exception("not me") }}', encoding='utf-8')
  with pytest.raises(DataError, match='chat_template.jinja.*not me'):  # A file of its own wins.
    tokenizer_of(folder).chat_format(thinking=True)


def spoiled(tmp_path, family, name, content):
  folder = copy_of(family, tmp_path / 'spoiled')
  (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  return folder


REFUSED = {
    'broken JSON': (lambda p: spoiled(p, 'qwen3', 'tokenizer.json', '{"a"'), r'tokenizer\.json: broken JSON .*download the file again'),
    'no object': (lambda p: spoiled(p, 'qwen3', 'tokenizer_config.json', '[]'), r'tokenizer_config\.json: holds a list, but must'),
    'another model': (
        lambda p: spoiled(p, 'qwen3', 'tokenizer.json', '{"model": {"type": "Unigram", "vocab": []}}'),
        r"tokenizer\.json: model\.type='Unigram', but only BPE is supported; use"),
    'not for the library': (
        lambda p: spoiled(p, 'qwen3', 'tokenizer.json', '{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": "x"}}'),
        r'tokenizer\.json: .*; .*'),
    'no SentencePiece': (lambda p: spoiled(p, 'llama2', 'tokenizer.model', b'IQ== 0\nIg== 1\n'), r'tokenizer\.model: not a SentencePiece model; '),
    'no template': (
        lambda p: copy_of('qwen3', p / 'x', without=('chat_template.jinja',)), r'x: no chat template \(chat_template\.jinja, or .*; base models'),
    'no default template': (
        lambda p: copy_of('qwen3', p / 'x', without=('chat_template.jinja',), chat_template=[{'name': 'rag', 'template': ''}]),
        "chat_template names rag, but one must be named 'default'; rename"),
    'template of a wrong type': (
        lambda p: copy_of('qwen3', p / 'x', without=('chat_template.jinja',), chat_template=7), 'chat_template is a int, but must be'),
    'no tokenizer': (
        lambda p: copy_of('qwen3', p / 'x', without=('tokenizer.json',)), r'x: neither tokenizer\.json nor tokenizer\.model is there; add'),
    'no folder': (lambda p: p / 'absent', 'absent: no such folder; give'),
    'class with other ids': (
        lambda p: copy_of('llama2', p / 'x', tokenizer_class='XLMRobertaTokenizer'),
        r"tokenizer_class='XLMRobertaTokenizer' with tokenizer\.model must be one of LlamaTokenizer, .*; add tokenizer\.json"),
    'no class': (lambda p: copy_of('llama2', p / 'x', tokenizer_class=None), r"tokenizer_class='' with tokenizer\.model must"),
    'template syntax': (
        lambda p: spoiled(p, 'qwen3', 'chat_template.jinja', 'a\n{% if %}'), r'chat_template\.jinja: chat template, line 2: .*; download'),
    'template that fails': (
        lambda p: spoiled(p, 'qwen3', 'chat_template.jinja', '{{ messages[0].content + 1 }}'),
        r'chat_template\.jinja: the chat template fails \(TypeError: .*; use'),
    'template that wants more': (
        lambda p: spoiled(p, 'qwen3', 'chat_template.jinja', '{{ tenant.name }}'), r"chat template needs what .*'tenant' is undefined.*; use"),
    'template that breaks out': (
        lambda p: spoiled(p, 'qwen3', 'chat_template.jinja', '{{ messages.append.__globals__ }}'), 'chat template (asks for what|needs what)'),
    'template that shows nothing': (lambda p: spoiled(p, 'qwen3', 'chat_template.jinja', 'Hi.'), 'the chat template leaves messages out; use'),
    'eos of a wrong type': (
        lambda p: spoiled(p, 'qwen3', 'generation_config.json', '{"eos_token_id": ["<|im_end|>"]}'),
        r"generation_config\.json: eos_token_id=\['<\|im_end\|>'\] must be a token id or a list of them; "),
    'no end of a turn': (
        lambda p: copy_of(
            'qwen3', p / 'x', without=('chat_template.jinja', 'generation_config.json'), eos_token='',
            chat_template='{% for m in messages %}{{ m.content }}\n{% endfor %}'), 'no token ends a turn, .*; set eos_token_id'),
    'ids of two models': (
        lambda p: spoiled(p, 'qwen3', 'added_tokens.json', '{"<|im_end|>": 3}'),
        r"added_tokens\.json: added token '<\|im_end\|>' has id 3, but another file of the folder says 658; take"),
    'a control token that is a word': (
        lambda p: spoiled(p, 'llama2', 'added_tokens.json', '{"▁are": 5}'), r"piece '▁are' has id \d+, but is declared with 5; take"),
    'moment': (lambda p: spoiled(p, 'llama3', MOMENT, 'today'), "'today' must be a date and time such as"),
}


@pytest.mark.parametrize('name', REFUSED)
def test_refused_folders(tmp_path, name):
  make, message = REFUSED[name]
  with pytest.raises(DataError, match=message) as caught:
    load_hf_tokenizer(make(tmp_path)).chat_format(thinking=True)
  assert '\n' not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_control_token_that_text_reaches_is_refused(tmp_path):
  folder = copy_of('llama3', tmp_path / 'x')
  path = folder / 'tokenizer.json'
  values = json.loads(path.read_text(encoding='utf-8'))
  # Learned pieces spell it: h + e, he + l, ...
  word = max((piece for piece in values['model']['vocab'] if piece.isascii() and piece.isalpha()), key=len)
  values['added_tokens'].append({'id': values['model']['vocab'][word], 'content': word, 'special': True})
  path.write_text(json.dumps(values), encoding='utf-8')
  with pytest.raises(DataError, match='tokenizer.json'):
    load_hf_tokenizer(folder)
