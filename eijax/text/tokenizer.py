"""SentencePiece tokenizer whose control tokens no text can spell.

Control pieces (roles, end of turn, think tags) are SentencePiece control symbols:
`encode` never produces them, whatever the text says, and only the chat format and
the policy itself put them into a context.
"""

import io
from collections.abc import Iterable, Sequence
import os
import pathlib

import sentencepiece

from eijax import jsonl
from eijax.errors import DataError
from eijax.text.chat_format import ChatFormat
from eijax.text.pieces import CONTROL_PIECES, END, THINK_CLOSE, THINK_OPEN

FILE_NAME = 'tokenizer.model'
# Always a piece of its own, so that a fact which a dash leads in with is asked for by the same token as a line of a sheet.
DASH = '-'


class Tokenizer:
  """A SentencePiece model with our control pieces.

  Attributes:
    model_bytes: the serialised model, to be stored beside a checkpoint.
    think_ids: see `eijax.text.ports`.
  """

  def __init__(self, model_bytes: bytes):
    self.model_bytes = model_bytes
    try:
      self._processor = sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    except RuntimeError as error:
      raise DataError(f'tokenizer model of {len(model_bytes)} bytes cannot be read: {error}') from None
    self._control = {piece: self._processor.piece_to_id(piece) for piece in CONTROL_PIECES}
    missing = [piece for piece, index in self._control.items() if not self._processor.is_control(index)]
    if missing:
      raise DataError(f'tokenizer lacks the control pieces {", ".join(missing)}; train it with eijax.text.train_tokenizer')
    self.think_ids = (self._control[THINK_OPEN], self._control[THINK_CLOSE])
    self._shown = dict(zip(self.think_ids, (THINK_OPEN, THINK_CLOSE)))

  @classmethod
  def from_file(cls, path: str | os.PathLike) -> 'Tokenizer':
    """Read a `.model` file."""
    try:
      with open(path, 'rb') as file:
        return cls(file.read())
    except OSError as error:
      raise DataError(f'{path}: the tokenizer cannot be read: {error.strerror}') from None

  @property
  def vocab_size(self) -> int:
    return self._processor.vocab_size()

  def control_id(self, piece: str) -> int:
    """Id of one of CONTROL_PIECES."""
    return self._control[piece]

  def lead_in(self) -> tuple[int, int, int]:
    """Ids of a dash, of what stands before one in speech (a space), and before one in a list (a new line)."""
    newline, dash = self.encode(f'\n{DASH}')[-2:]
    space, _ = self.encode(f' {DASH}')[-2:]
    return dash, space, newline

  def encode(self, text: str) -> list[int]:
    """Ids of plain text; a control token spelled out in it becomes ordinary pieces."""
    return self._processor.encode(text.encode('utf-8', 'replace').decode())  # A model may emit half of a surrogate pair.

  def decode(self, ids: Sequence[int]) -> str:
    """Text of sampled ids; think tags are shown, other control tokens are dropped."""
    parts, plain = [], []
    for index in map(int, ids):
      if index in self._shown:
        parts += [self._processor.decode(plain), self._shown[index]]
        plain = []
      else:
        plain.append(index)
    return ''.join([*parts, self._processor.decode(plain)])

  def sampleable_ids(self, thinking: bool) -> list[int]:
    """Ids that a policy may sample: text, end of turn and, if `thinking`, the think tags."""
    allowed = {self._control[END]}
    if thinking:
      allowed |= set(self._shown)
    processor = self._processor
    return [i for i in range(processor.vocab_size())
            if i in allowed or not (processor.is_control(i) or processor.is_unknown(i))]

  def chat_format(self, *, thinking: bool) -> ChatFormat:
    """The format of a talk; ours is the same whether the policy thinks or not."""
    del thinking
    return ChatFormat(self)

  def save(self, folder: str | os.PathLike) -> None:
    """Write the model as `tokenizer.model`."""
    jsonl.write_bytes(pathlib.Path(folder) / FILE_NAME, self.model_bytes)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
  """Train a byte-pair model on lines of text; the same texts give the same model.

  Bytes back up rare characters, so that every text decodes to itself, spaces
  included; only U+2581, SentencePiece's own mark of a space, comes back as one.

  Raises:
    DataError: the texts hold too few distinct pieces for vocab_size.
  """
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=vocab_size, model_type='bpe',
        byte_fallback=True, split_digits=True, normalization_rule_name='identity', remove_extra_whitespaces=False,
        character_coverage=1.0, num_threads=1, minloglevel=2, control_symbols=list(CONTROL_PIECES),
        user_defined_symbols=[DASH])
  except RuntimeError as error:
    remedy = 'more pieces: their characters alone are more' if 'smaller than required' in str(error) else 'fewer pieces'
    raise DataError(f'vocab_size={vocab_size} cannot be reached from these texts ({error}); use {remedy}') from None
  return Tokenizer(model.getvalue())
