"""Make the small tokenizers of tests/hf_text anew: python tests/parity/make_folders.py

One folder for each family of policies, with what matters of the real ones: pre-tokenizer,
added tokens, control and user-defined pieces, files and their fields. The templates stand
there already. After a change, record the ids again (record.py).
"""

import io
import json
import pathlib

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ROOT / 'tests' / 'hf_text'
NUM_MERGES = 400
CHATML = ('<|endoftext|>', '<|im_start|>', '<|im_end|>')
QWEN_REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
              r'\s+(?!\S)|\s+')
LLAMA_REGEX = QWEN_REGEX.replace(r'|\p{N}|', r'|\p{N}{1,3}|')


def corpus() -> list[str]:
  """Sheets and lines of training scenarios, English and Chinese, with line breaks and emoji."""
  texts = []
  for scene in ('support', 'charm'):
    with open(ROOT / 'scenario_data' / 'train' / f'{scene}_final.jsonl', encoding='utf-8') as file:
      records = [json.loads(line) for line in file]
    for record in (*records[:40], *records[-40:]):
      texts.append(record['aggressor_profile']['system_prompt'])
  return [*texts, *[
      'Oh no 😢😢 I am so sorry.\n\nHow are you? 👍', '你好，我很难过。😢\n别再说了。', 'user\nmodel\nassistant\nsystem\n'] * 60]


def added(text: str, index: int, special: bool) -> dict:
  return {'id': index, 'content': text, 'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False,
          'special': special}


def write(folder: str, **files) -> None:
  for name, content in files.items():
    path = FOLDERS / folder / name.replace('__', '.')
    if isinstance(content, bytes):
      path.write_bytes(content)
    else:
      path.write_text(json.dumps(content, ensure_ascii=False, indent=1 if name != 'tokenizer__json' else None) + '\n', encoding='utf-8')


def byte_level(regex: str, tokens: list[tuple[str, bool]], *, nfc: bool, ignore_merges: bool, bos: str | None) -> dict:
  """A byte-level tokenizer.json; `tokens` are added behind the learned pieces (text, special)."""
  tokenizer = tokenizers.Tokenizer(models.BPE(ignore_merges=ignore_merges))
  if nfc:
    tokenizer.normalizer = normalizers.NFC()
  tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
      pre_tokenizers.Split(tokenizers.Regex(regex), 'isolated'), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
      vocab_size=256 + NUM_MERGES, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
  for text, special in tokens:
    make = tokenizer.add_special_tokens if special else tokenizer.add_tokens
    make([tokenizers.AddedToken(text, special=special, normalized=False)])
  if bos is not None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f'{bos} $A', pair=None, special_tokens=[(bos, tokenizer.token_to_id(bos))])
  return json.loads(tokenizer.to_str())


def decoder_table(tokenizer: dict) -> dict[str, dict]:
  return {str(token['id']): {key: value for key, value in token.items() if key != 'id'} for token in tokenizer['added_tokens']}


def qwen(folder: str, *, thinks: bool) -> None:
  names = ['<|object_ref_start|>', '<|vision_start|>', '<|vision_end|>', '<|image_pad|>']
  plain = ['<tool_call>', '</tool_call>', '<|fim_prefix|>', '<|repo_name|>']
  plain += ['<tool_response>', '</tool_response>', '<think>', '</think>'] if thinks else []
  tokenizer = byte_level(QWEN_REGEX, [*((text, True) for text in (*CHATML, *names)), *((text, False) for text in plain)],
                         nfc=True, ignore_merges=False, bos=None)
  ids = {token['content']: token['id'] for token in tokenizer['added_tokens']}
  write(
      folder, tokenizer__json=tokenizer,
      tokenizer_config__json={
          'add_bos_token': False, 'add_prefix_space': False, 'added_tokens_decoder': decoder_table(tokenizer),
          'additional_special_tokens': ['<|im_start|>', '<|im_end|>', *names], 'bos_token': None, 'clean_up_tokenization_spaces': False,
          'eos_token': '<|im_end|>', 'errors': 'replace', 'model_max_length': 131072, 'pad_token': '<|endoftext|>',
          'split_special_tokens': False, 'tokenizer_class': 'Qwen2Tokenizer', 'unk_token': None},
      generation_config__json={'do_sample': True, 'eos_token_id': [ids['<|im_end|>'], ids['<|endoftext|>']],
                               'pad_token_id': ids['<|endoftext|>']})


def llama3() -> None:
  texts = ['<|begin_of_text|>', '<|end_of_text|>', '<|finetune_right_pad_id|>', '<|start_header_id|>', '<|end_header_id|>',
           '<|eom_id|>', '<|eot_id|>', '<|python_tag|>', *(f'<|reserved_special_token_{i}|>' for i in range(8))]
  tokenizer = byte_level(LLAMA_REGEX, [(text, True) for text in texts], nfc=False, ignore_merges=True, bos='<|begin_of_text|>')
  ids = {token['content']: token['id'] for token in tokenizer['added_tokens']}
  write(
      'llama3', tokenizer__json=tokenizer,
      tokenizer_config__json={
          'added_tokens_decoder': decoder_table(tokenizer), 'bos_token': '<|begin_of_text|>', 'clean_up_tokenization_spaces': True,
          'eos_token': '<|eot_id|>', 'model_input_names': ['input_ids', 'attention_mask'], 'model_max_length': 131072,
          'pad_token': '<|finetune_right_pad_id|>', 'tokenizer_class': 'PreTrainedTokenizerFast'},
      special_tokens_map__json={'bos_token': {'content': '<|begin_of_text|>', 'lstrip': False, 'normalized': False, 'rstrip': False,
                                              'single_word': False}, 'eos_token': '<|eot_id|>'},
      generation_config__json={'bos_token_id': ids['<|begin_of_text|>'], 'do_sample': True,
                               'eos_token_id': [ids['<|end_of_text|>'], ids['<|eom_id|>'], ids['<|eot_id|>']]})


def sentence_pieces(*, control: list[str], user_defined: list[str], dummy_prefix: bool, **special) -> bytes:
  model = io.BytesIO()
  lines = [line for text in corpus() for line in text.splitlines() if line]
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(lines), model_writer=model, vocab_size=1500, model_type='bpe', byte_fallback=True, split_digits=True,
      normalization_rule_name='identity', remove_extra_whitespaces=False, add_dummy_prefix=dummy_prefix, character_coverage=0.99,
      num_threads=1, minloglevel=2, control_symbols=control, user_defined_symbols=user_defined, **special)
  return model.getvalue()


def merges_of(proto, spaces: list[str]) -> list[list[str]]:
  """Merges that build the pieces of a SentencePiece model: whitespace first, the others in the order of their scores."""
  learned = {piece.piece: piece.score for piece in proto.pieces if piece.type == piece.NORMAL}
  learned |= {text: 1 / len(text) for text in spaces}
  ids = {piece.piece: index for index, piece in enumerate(proto.pieces)}
  merges = []
  for text, score in learned.items():
    pairs = [(text[:i], text[i:]) for i in range(1, len(text)) if text[:i] in learned and text[i:] in learned]
    merges += [(score, pair) for pair in sorted(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))]
  return [list(pair) for _, pair in sorted(merges, key=lambda merge: -merge[0])]


def gemma3() -> None:
  spaces = ['\n', '\n\n', '\n\n\n', '▁▁', '▁▁▁', '▁▁▁▁']
  plain = ['<mask>', '[multimodal]', *(f'<unused{i}>' for i in range(12)), *spaces, '<table>', '</table>', '<h1>']
  turns = ['<start_of_turn>', '<end_of_turn>']
  raw = sentence_pieces(control=[], user_defined=[*turns, *plain], dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
                        pad_piece='<pad>', eos_piece='<eos>', bos_piece='<bos>')
  proto = sentencepiece_model_pb2.ModelProto.FromString(raw)
  vocab = {piece.piece: index for index, piece in enumerate(proto.pieces)}
  special = {'<pad>', '<eos>', '<bos>', '<unk>', *turns}
  texts = sorted({*special, *plain}, key=vocab.get)
  tokenizer = {
      'version': '1.0', 'truncation': None, 'padding': None,
      'added_tokens': [added(text, vocab[text], text in special) for text in texts],
      'normalizer': {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '▁'},
      'pre_tokenizer': {'type': 'Split', 'pattern': {'String': ' '}, 'behavior': 'MergedWithPrevious', 'invert': False},
      'post_processor': {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': '<bos>', 'type_id': 0}},
                                                                  {'Sequence': {'id': 'A', 'type_id': 0}}],
                         'pair': [], 'special_tokens': {'<bos>': {'id': '<bos>', 'ids': [2], 'tokens': ['<bos>']}}},
      'decoder': {'type': 'Sequence', 'decoders': [{'type': 'Replace', 'pattern': {'String': '▁'}, 'content': ' '},
                                                   {'type': 'ByteFallback'}, {'type': 'Fuse'}]},
      'model': {'type': 'BPE', 'dropout': None, 'unk_token': '<unk>', 'continuing_subword_prefix': None, 'end_of_word_suffix': None,
                'fuse_unk': True, 'byte_fallback': True, 'ignore_merges': False, 'vocab': vocab, 'merges': merges_of(proto, spaces)}}
  write(
      'gemma3', tokenizer__json=tokenizer, tokenizer__model=raw,
      tokenizer_config__json={
          'add_bos_token': True, 'add_eos_token': False, 'added_tokens_decoder': decoder_table(tokenizer), 'bos_token': '<bos>',
          'clean_up_tokenization_spaces': False, 'eos_token': '<eos>', 'model_max_length': 131072, 'pad_token': '<pad>',
          'spaces_between_special_tokens': False, 'tokenizer_class': 'GemmaTokenizer', 'unk_token': '<unk>'},
      generation_config__json={'eos_token_id': [vocab['<eos>'], vocab['<end_of_turn>']], 'pad_token_id': 0})


def llama2() -> None:
  raw = sentence_pieces(control=[], user_defined=[], dummy_prefix=True, unk_id=0, bos_id=1, eos_id=2, pad_id=-1)
  flags = {'lstrip': False, 'normalized': False, 'rstrip': False, 'single_word': False}
  write(
      'llama2', tokenizer__model=raw,
      tokenizer_config__json={
          'add_bos_token': True, 'add_eos_token': False, 'bos_token': {'__type': 'AddedToken', 'content': '<s>', **flags},
          'clean_up_tokenization_spaces': False, 'eos_token': {'__type': 'AddedToken', 'content': '</s>', **flags},
          'legacy': False, 'model_max_length': 4096, 'pad_token': None, 'tokenizer_class': 'LlamaTokenizer',
          'unk_token': {'__type': 'AddedToken', 'content': '<unk>', **flags}},
      generation_config__json={'bos_token_id': 1, 'eos_token_id': 2})


if __name__ == '__main__':
  qwen('qwen3', thinks=True)
  qwen('qwen2_5', thinks=False)
  llama3()
  gemma3()
  llama2()
