"""The small Hugging Face tokenizer folders of tests/hf_text, and copies of them to spoil."""

import datetime
import hashlib
import json
import pathlib
import shutil

from eijax.text.hf_files import read_hf_files
from eijax.text.hf_tokenizer import HfTokenizer

FOLDERS = pathlib.Path(__file__).parent / 'hf_text'
FAMILIES = ('qwen3', 'qwen2_5', 'llama3', 'gemma3', 'llama2')
# Ids that transformers gave (tests/parity/record.py): family -> thinking -> [number of ids, digest] of each talk.
GOLDEN = FOLDERS / 'golden.json'
MOMENT = datetime.datetime(2026, 5, 1, 12)


def tokenizer_of(folder) -> HfTokenizer:
  """The tokenizer of a folder, on a fixed day."""
  return HfTokenizer(read_hf_files(folder), MOMENT)


def copy_of(family: str, path: pathlib.Path, *, without=(), **changes) -> pathlib.Path:
  """A copy without some files, with other values in tokenizer_config.json (None removes one)."""
  shutil.copytree(FOLDERS / family, path, ignore=lambda *_: without)
  file = path / 'tokenizer_config.json'
  if changes and file.exists():
    values = json.loads(file.read_text(encoding='utf-8')) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}), encoding='utf-8')
  return path


def digest(ids) -> list:
  return [len(ids), hashlib.sha256(json.dumps([int(index) for index in ids]).encode()).hexdigest()[:16]]


def with_controls(tokenizer: HfTokenizer, ids) -> str:
  """Text of a prompt, control tokens included."""
  names = {index: text for text, index in tokenizer.control_tokens.ids.items()}
  parts, plain = [], []
  for index in ids:
    if index in names:
      parts += [tokenizer.decode(plain), names[index]]
      plain = []
    else:
      plain.append(index)
  return ''.join([*parts, tokenizer.decode(plain)])
