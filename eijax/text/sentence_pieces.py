"""Plain text and the pieces of a tokenizer.model, through SentencePiece."""

from collections.abc import Collection, Sequence

from google.protobuf.message import DecodeError
import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from eijax.errors import DataError
from eijax.text.hf_files import DeclaredToken, HfFiles
from eijax.text.space_prefix import SpacePrefix

# Other classes shift the ids of their SentencePiece model.
CLASSES = ('LlamaTokenizer', 'CodeLlamaTokenizer', 'GemmaTokenizer')
_Piece = sentencepiece_model_pb2.ModelProto.SentencePiece


def _model(files: HfFiles) -> sentencepiece_model_pb2.ModelProto:
  try:
    model = sentencepiece_model_pb2.ModelProto.FromString(files.contents[files.path.name])
  except DecodeError:
    model = None
  if model is None or not model.pieces:
    raise DataError(f'{files.path}: not a SentencePiece model; download it again, or add tokenizer.json') from None
  return model


def vocabulary(files: HfFiles) -> tuple[dict[str, int], list[DeclaredToken]]:
  """Ids of all pieces of a model, and those that are declared in it: control and user-defined ones.

  Raises:
    DataError: the file is no SentencePiece model, or its tokenizer class is not supported.
  """
  name = files.tokenizer_class.removesuffix('Fast')
  if name not in CLASSES:
    raise DataError(f'{files.folder / "tokenizer_config.json"}: tokenizer_class={files.tokenizer_class!r} with '
                    f'{files.path.name} must be one of {", ".join(CLASSES)}; add tokenizer.json for others')
  pieces = list(enumerate(_model(files).pieces))
  declared = [DeclaredToken(text=piece.piece, id=index, special=piece.type == _Piece.CONTROL) for index, piece in pieces
              if piece.type in (_Piece.CONTROL, _Piece.USER_DEFINED, _Piece.UNUSED) and piece.piece]
  return {piece.piece: index for index, piece in pieces}, declared


class SentencePieces:
  """Learned pieces that know no control tokens; the face of `BytePairs`."""

  def __init__(self, files: HfFiles, controls: Collection[str]):
    model = _model(files)
    self.pieces, self.unknown_ids = {}, set()
    for index, piece in enumerate(model.pieces):
      if piece.type == _Piece.UNKNOWN:
        self.unknown_ids.add(index)
      elif piece.piece in controls:
        piece.type = _Piece.CONTROL  # No text is encoded to a control piece.
      else:
        self.pieces[index] = piece.piece
    self.prefix = SpacePrefix()
    if model.normalizer_spec.add_dummy_prefix:
      self.prefix = SpacePrefix(where='always' if files.legacy else 'first')
      model.normalizer_spec.add_dummy_prefix = False
    try:
      self._processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    except RuntimeError as error:
      raise DataError(f'{files.path}: the SentencePiece model cannot be used ({error}); download it again') from None

  def encode(self, text: str) -> list[int]:
    """Ids of text, without a space before it."""
    return self._processor.encode(text)

  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids that are no control tokens; bytes that are no character show as U+FFFD."""
    return self.prefix.removed(self._processor.decode(list(ids)))
