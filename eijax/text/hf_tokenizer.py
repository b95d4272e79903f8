"""The tokenizer of a Hugging Face folder, with the face of `eijax.text.ports.Tokenizer`."""

from collections.abc import Sequence
import dataclasses
import datetime
import functools
import os
import pathlib
import re

from eijax import jsonl
from eijax.errors import DataError
from eijax.text import sentence_pieces
from eijax.text.byte_pairs import BytePairs
from eijax.text.chat_template import ChatTemplate
from eijax.text.control_tokens import ControlTokens
from eijax.text.hf_chat import HfChatFormat
from eijax.text.hf_files import MOMENT, DeclaredToken, HfFiles, read_hf_files
from eijax.text.pieces import THINK_CLOSE, THINK_OPEN

# Sheets and lines of a talk come back in every prompt of it.
_CACHED_TEXTS = 8192
_MARKUP = re.compile('</?(?:table|caption|thead|tbody|tfoot|tr|th|td|ul|ol|li|p|br|hr|h[1-6]|blockquote|strong|em|[bius]|sub|sup|'
                     'code|pre)>')


class HfTokenizer:
  """Pieces, control tokens and chat template of one folder.

  Every declared token that is no ordinary text counts as a control token: no text of a
  message is encoded to it, and of them a policy samples only those that end a turn or
  mark a thought.

  Attributes:
    vocab_size: largest id plus one.
    control_tokens: they, with their ids.
    template: the chat template.
    eos_ids: end-of-sequence ids; may be empty.
  """

  def __init__(self, files: HfFiles, moment: datetime.datetime):
    self._files, self._moment = files, moment
    self.control_tokens = ControlTokens(_control_tokens(files))
    ids = self.control_tokens.ids
    engine = BytePairs if files.tokenizer is not None else sentence_pieces.SentencePieces
    self._pieces = engine(files, ids.keys())
    # A declaration may give a spare piece another name.
    self._text_ids = set(self._pieces.pieces) - set(ids.values())
    self._refuse_spellable()
    self.vocab_size = max([*ids.values(), *self._pieces.pieces], default=-1) + 1
    self._shown = {ids[tag]: tag for tag in (THINK_OPEN, THINK_CLOSE) if tag in ids}
    self.template = ChatTemplate(files.template, files.template_path, files.named, moment)
    eos = ids.get(files.named.get('eos_token'))
    self.eos_ids = files.eos_ids or (() if eos is None else (eos,))
    self._encoded = functools.lru_cache(_CACHED_TEXTS)(lambda text: tuple(self._pieces.encode(text.encode('utf-8', 'replace').decode())))
    self._formats: dict[bool, HfChatFormat] = {}

  def _refuse_spellable(self) -> None:
    # The unknown piece says nothing, whoever writes it.
    control_ids = set(self.control_tokens.ids.values()) - self._pieces.unknown_ids
    for text in self.control_tokens.ids:
      if control_ids & set(self._pieces.encode(text)):
        raise DataError(f'{self._files.path}: control token {text!r} is also what plain text is encoded to, so any message could '
                        'forge it; use a tokenizer whose control tokens are added tokens')

  def encode(self, text: str) -> list[int]:
    """Ids of plain text; a control token spelled out in it becomes ordinary pieces."""
    return self.encode_part(text, at_start=True)

  def encode_part(self, text: str, *, at_start: bool) -> list[int]:
    """The same for a stretch of a longer text that starts it or follows a control token."""
    return list(self._encoded(self._pieces.prefix.put(text, at_start=at_start)))

  def encode_tail(self, text: str) -> list[int]:
    """The same for text that goes on after other text."""
    return list(self._encoded(text))

  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids: think tags are shown, other control tokens are dropped."""
    parts, plain = [], []
    for index in map(int, ids):
      if index in self._shown:
        parts += [self._pieces.decode(plain), self._shown[index]]
        plain = []
      elif index in self._text_ids:
        plain.append(index)
    return ''.join([*parts, self._pieces.decode(plain)])

  def begins_with_space(self, index: int) -> bool:
    """Whether an id is a piece that begins with a space."""
    return self._pieces.pieces.get(index, '').startswith(('▁', 'Ġ', ' '))

  def chat_format(self, *, thinking: bool) -> HfChatFormat:
    """The talk as the template writes it.

    Raises:
      DataError: the template takes no talk of a user and an assistant, or ends its turns by no token.
    """
    if thinking not in self._formats:
      self._formats[thinking] = HfChatFormat(self, thinking=thinking)
    return self._formats[thinking]

  def sampleable_ids(self, thinking: bool) -> list[int]:
    """Ids that a policy may sample: text, stop tokens and, where it may think, the think tags.

    Rows of an embedding beyond the vocabulary are not among them.
    """
    chat_format = self.chat_format(thinking=thinking)
    allowed = self._text_ids - self._pieces.unknown_ids | set(chat_format.stop_ids)
    if thinking or chat_format.thought_opened:
      allowed |= set(self._shown)
    return sorted(allowed)

  def save(self, folder: str | os.PathLike) -> None:
    """Write the tokenizer's files as they were read; with its present, where the template tells one."""
    files = dict(self._files.contents)
    if 'strftime_now' in self.template.source:
      files[MOMENT] = self._moment.isoformat().encode()
    if self.eos_ids and 'generation_config.json' not in files:
      jsonl.write_json(pathlib.Path(folder) / 'generation_config.json', {'eos_token_id': list(self.eos_ids)})
    for name, content in files.items():
      jsonl.write_bytes(pathlib.Path(folder) / name, content)


def _control_tokens(files: HfFiles) -> list[DeclaredToken]:
  """The declared tokens that have an id and are no ordinary text."""
  declared = {token.text: token for token in files.declared}
  if files.tokenizer is None:
    known, pieces = sentence_pieces.vocabulary(files)
    declared = {token.text: token for token in pieces} | declared
  else:
    known = (files.tokenizer.get('model') or {}).get('vocab')
    known = known if isinstance(known, dict) else {}
  for token in declared.values():
    if token.id is not None and known.get(token.text, token.id) != token.id:
      raise DataError(f'{files.path}: piece {token.text!r} has id {known[token.text]}, but is declared with {token.id}; '
                      'take all tokenizer files from one model')
  tokens = [dataclasses.replace(token, id=known.get(token.text)) if token.id is None else token for token in declared.values()]
  # A token without an id is only a name.
  return [token for token in tokens if token.id is not None and not _is_text(token, files.template)]


def _is_text(token: DeclaredToken, template: str) -> bool:
  """Whether a token is text that people write, as Gemma's line breaks and HTML tags are."""
  if token.special or token.text in template and token.text.strip():
    return False
  return not token.text.replace('▁', ' ').strip() or bool(_MARKUP.fullmatch(token.text))


def load_hf_tokenizer(folder: str | os.PathLike) -> HfTokenizer:
  """The tokenizer and chat template of a Hugging Face folder.

  A date that the template tells is that of the loading, and of the first loading for a
  folder that `save` wrote.

  Raises:
    DataError: something is missing, broken or not supported; names the file and the remedy.
  """
  files = read_hf_files(folder)
  return HfTokenizer(files, files.moment or datetime.datetime.now().replace(microsecond=0))
