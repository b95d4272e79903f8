"""What a Hugging Face folder says about text: its tokenizer's files, read but not yet built.

Which file wins follows transformers: chat_template.jinja before tokenizer_config.json,
generation_config.json before config.json, tokenizer_config.json before special_tokens_map.json.
"""

from collections.abc import Mapping
import dataclasses
import datetime
import json
import os
import pathlib
from typing import Any

from eijax.errors import DataError

TOKENIZER_JSON, TOKENIZER_MODEL = 'tokenizer.json', 'tokenizer.model'
TEMPLATE = 'chat_template.jinja'
# The moment that a template with a date line tells the model. Ours: a run that goes on tomorrow
# must show its policy the same prompts.
MOMENT = 'chat_moment.txt'
_CONFIG, _SPECIAL, _ADDED = 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json'
_GENERATION, _OLD_TEMPLATE = 'generation_config.json', 'chat_template.json'
_COPIED = (TOKENIZER_JSON, TOKENIZER_MODEL, _CONFIG, _SPECIAL, _ADDED, _GENERATION, TEMPLATE, _OLD_TEMPLATE, MOMENT)
_NAMED = ('bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token')


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeclaredToken:
  """A token that stands beside the learned pieces. id: None where only its text is declared."""

  text: str
  id: int | None
  special: bool
  lstrip: bool = False
  rstrip: bool = False
  single_word: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class HfFiles:
  """Files of one folder.

  Attributes:
    contents: name -> bytes of the files that a copy of the tokenizer needs.
    tokenizer: tokenizer.json as parsed, or None.
    tokenizer_class: as declared, or ''.
    legacy: whether every stretch of text gets SentencePiece's dummy prefix (Llama 1).
    declared: tokens beside the learned pieces, of all files; later declarations win.
    named: the template's variables, such as bos_token.
    template: source of the chat template. template_path: where it stands.
    eos_ids: end-of-sequence ids of the generation settings; may be empty.
    moment: the frozen present, or None.
  """

  folder: pathlib.Path
  contents: Mapping[str, bytes]
  tokenizer: dict | None
  tokenizer_class: str
  legacy: bool
  declared: tuple[DeclaredToken, ...]
  named: Mapping[str, Any]
  template: str
  template_path: pathlib.Path
  eos_ids: tuple[int, ...]
  moment: datetime.datetime | None

  @property
  def path(self) -> pathlib.Path:
    """The file that holds the pieces."""
    return self.folder / (TOKENIZER_JSON if self.tokenizer is not None else TOKENIZER_MODEL)


def is_hf_folder(folder: str | os.PathLike) -> bool:
  """Whether a folder's tokenizer is one of Hugging Face's; ours is a lone tokenizer.model."""
  folder = pathlib.Path(folder)
  return any((folder / name).exists() for name in (_CONFIG, TOKENIZER_JSON))


def read_hf_files(folder: str | os.PathLike) -> HfFiles:
  """Read the tokenizer's files of a model folder.

  Raises:
    DataError: no tokenizer or template, or a file that cannot be understood.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise DataError(f'{folder}: no such folder; give the folder of a Hugging Face model')
  contents = {name: _read(folder / name) for name in _COPIED if (folder / name).is_file()}
  if TOKENIZER_JSON not in contents and TOKENIZER_MODEL not in contents:
    raise DataError(
        f'{folder}: neither {TOKENIZER_JSON} nor {TOKENIZER_MODEL} is there; add one of them (a slow tokenizer becomes '
        f'{TOKENIZER_JSON} by AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) in transformers)')
  settings, special = (_object(folder / name, contents) for name in (_CONFIG, _SPECIAL))
  tokenizer = _object(folder / TOKENIZER_JSON, contents) if TOKENIZER_JSON in contents else None
  template, template_path = _template(folder, contents, settings)
  return HfFiles(
      folder=folder, contents=contents, tokenizer=tokenizer,
      tokenizer_class=str(settings.get('tokenizer_class') or ''), legacy=bool(settings.get('legacy', False)),
      declared=_declared(folder, contents, settings, special, tokenizer), named=_named(settings, special),
      template=template, template_path=template_path, eos_ids=_eos_ids(folder, contents),
      moment=_moment(folder / MOMENT, contents))


def _read(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise DataError(f'{path}: cannot be read ({error.strerror}); check the file') from None


def _text(path: pathlib.Path, contents: Mapping[str, bytes]) -> str:
  try:
    return contents[path.name].decode('utf-8')
  except UnicodeDecodeError as error:
    raise DataError(f'{path}: byte {error.start + 1} is not UTF-8; download the file again') from None


def _object(path: pathlib.Path, contents: Mapping[str, bytes]) -> dict:
  """A JSON object; empty where the file is not there."""
  if path.name not in contents:
    return {}
  try:
    value = json.loads(_text(path, contents))
  except (ValueError, RecursionError) as error:
    if isinstance(error, DataError):
      raise
    raise DataError(f'{path}: broken JSON ({error}); download the file again') from None
  if not isinstance(value, dict):
    raise DataError(f'{path}: holds a {type(value).__name__}, but must hold a JSON object; download the file again')
  return value


def _content(value: Any) -> str | None:
  """Text of a token that is written as a string or as an object."""
  if isinstance(value, Mapping):
    value = value.get('content')
  return value if isinstance(value, str) and value else None


def _extra(settings: Mapping, special: Mapping) -> list[str]:
  for source in (settings, special):
    for key in ('extra_special_tokens', 'additional_special_tokens'):
      values = source.get(key)
      if values:
        values = values.values() if isinstance(values, Mapping) else values if isinstance(values, list) else []
        return [text for text in map(_content, values) if text]
  return []


def _named(settings: Mapping, special: Mapping) -> dict[str, Any]:
  named = {}
  for source in (special, settings):
    named.update({key: text for key in _NAMED if (text := _content(source.get(key)))})
  extra = settings.get('extra_special_tokens')
  if isinstance(extra, Mapping):  # A model's own names, such as image_token.
    named.update({key: text for key, value in extra.items() if (text := _content(value))})
  return named


def _declared(
    folder: pathlib.Path, contents: Mapping[str, bytes], settings: Mapping, special: Mapping, tokenizer: Mapping | None
) -> tuple[DeclaredToken, ...]:
  found: dict[str, DeclaredToken] = {}

  def declare(path: pathlib.Path, text: Any, index: Any, flags: Mapping) -> None:
    if not isinstance(text, str) or not text or not (index is None or isinstance(index, int) and index >= 0):
      raise DataError(f'{path}: added token {text!r} with id {index!r} must have a text and a whole number; '
                      'download the file again')
    before = found.get(text)
    if before is not None and None not in (before.id, index) and before.id != index:
      raise DataError(f'{path}: added token {text!r} has id {index}, but another file of the folder says {before.id}; '
                      'take all tokenizer files from one model')
    found[text] = DeclaredToken(
        text=text, id=index if index is not None else before.id if before else None,
        special=bool(flags.get('special', before.special if before else False)),
        **{name: bool(flags.get(name, getattr(before, name) if before else False))
           for name in ('lstrip', 'rstrip', 'single_word')})

  path = folder / TOKENIZER_JSON
  for token in (tokenizer or {}).get('added_tokens') or []:
    declare(path, token.get('content'), token.get('id'), token)
  path = folder / _CONFIG
  for index, token in (settings.get('added_tokens_decoder') or {}).items():
    token = token if isinstance(token, Mapping) else {'content': token}
    declare(path, token.get('content'), int(index) if str(index).isdigit() else index, token)
  path = folder / _ADDED
  for text, index in _object(path, contents).items():
    declare(path, text, index, {})
  for text in [*(v for v in _named(settings, special).values()), *_extra(settings, special)]:
    declare(folder / _SPECIAL, text, None, {'special': True})
  return tuple(found.values())


def _template(folder: pathlib.Path, contents: Mapping[str, bytes], settings: Mapping) -> tuple[str, pathlib.Path]:
  if TEMPLATE in contents:
    return _text(folder / TEMPLATE, contents), folder / TEMPLATE
  for name, source in ((_CONFIG, settings), (_OLD_TEMPLATE, _object(folder / _OLD_TEMPLATE, contents))):
    template = source.get('chat_template')
    if isinstance(template, list):
      named = {entry.get('name'): entry.get('template') for entry in template if isinstance(entry, Mapping)}
      if 'default' not in named:
        raise DataError(f'{folder / name}: chat_template names {", ".join(map(str, named))}, but one must be named '
                        "'default'; rename the one that is for plain talks")
      template = named['default']
    if isinstance(template, str):
      return template, folder / name
    if template is not None:
      raise DataError(f'{folder / name}: chat_template is a {type(template).__name__}, but must be a string or a list of '
                      'objects with name and template; download the file again')
  raise DataError(f'{folder}: no chat template ({TEMPLATE}, or chat_template in {_CONFIG}); base models have none: use the '
                  'chat model, or add its template')


def _eos_ids(folder: pathlib.Path, contents: Mapping[str, bytes]) -> tuple[int, ...]:
  config = folder / 'config.json'
  model = _object(config, {config.name: _read(config)}) if config.is_file() else {}
  text_model = model.get('text_config')
  sources = ((folder / _GENERATION, _object(folder / _GENERATION, contents)), (config, model),
             (config, text_model if isinstance(text_model, Mapping) else {}))
  for path, values in sources:
    ids = values.get('eos_token_id')
    if ids is None:
      continue
    ids = ids if isinstance(ids, list) else [ids]
    if not all(isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in ids):
      raise DataError(f'{path}: eos_token_id={ids} must be a token id or a list of them; download the file again')
    return tuple(ids)
  return ()


def _moment(path: pathlib.Path, contents: Mapping[str, bytes]) -> datetime.datetime | None:
  if path.name not in contents:
    return None
  text = _text(path, contents).strip()
  try:
    return datetime.datetime.fromisoformat(text)
  except ValueError:
    raise DataError(f'{path}: {text!r} must be a date and time such as 2026-05-01T12:00:00; restore the file') from None
