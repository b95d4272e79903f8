"""Plain text and the pieces of a tokenizer.json, through the `tokenizers` library."""

from collections.abc import Collection, Sequence
import itertools
import json
import re
from typing import Any

import tokenizers

from eijax.errors import DataError
from eijax.text.hf_files import HfFiles
from eijax.text.space_prefix import SpacePrefix

_BYTE = re.compile('<0x[0-9A-F]{2}>')


class BytePairs:
  """Byte-pair pieces (byte-level, or with byte fallback) that know no control tokens.

  Attributes:
    pieces: id -> piece as the vocabulary writes it, control tokens left out.
    unknown_ids: ids that stand for what the vocabulary lacks.
    prefix: where a space goes before a stretch of text.
  """

  def __init__(self, files: HfFiles, controls: Collection[str]):
    settings = dict(files.tokenizer)
    model = settings.get('model') or {}
    if model.get('type', 'BPE') != 'BPE' or not isinstance(model.get('vocab'), dict):
      raise DataError(f'{files.path}: model.type={model.get("type")!r}, but only BPE is supported; use a policy of the Qwen, '
                      'Llama or Gemma families')
    self.prefix, settings['pre_tokenizer'], settings['normalizer'] = _without_prefix(settings)
    kept = [token for token in settings.get('added_tokens') or [] if token['content'] not in controls]
    unknown = model.get('unk_token')
    # A control token that is spelled as a whole word would be looked up (ignore_merges), so it leaves the vocabulary.
    vocab = {piece: index for piece, index in model['vocab'].items() if piece not in controls or piece == unknown}
    settings.update(decoder=_without_strip(settings.get('decoder')), added_tokens=kept, post_processor=None, truncation=None,
                    padding=None, model={**model, 'vocab': vocab})
    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(settings))
    except Exception as error:  # The library raises bare exceptions. pylint: disable=broad-exception-caught
      raise DataError(f'{files.path}: the tokenizer cannot be built ({error}); download the file again') from None
    self.pieces = {index: piece for piece, index in vocab.items()}
    # Kept tokens beyond the model's own pieces are numbered anew by the library.
    self._true_id = {self._tokenizer.token_to_id(token['content']): token['id'] for token in kept}
    self._true_id = {here: true for here, true in self._true_id.items() if here != true}
    self._id_here = {true: here for here, true in self._true_id.items()}
    self.pieces.update({token['id']: token['content'] for token in kept})
    self._byte_of = {index: int(piece[3:5], 16) for index, piece in self.pieces.items()
                     if model.get('byte_fallback') and _BYTE.fullmatch(piece)}
    self.unknown_ids = {vocab[unknown]} if unknown in vocab else set()

  def encode(self, text: str) -> list[int]:
    """Ids of text, without a space before it."""
    ids = self._tokenizer.encode(text, add_special_tokens=False).ids
    return [self._true_id.get(index, index) for index in ids] if self._true_id else ids

  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids that are no control tokens; bytes that are no character show as U+FFFD.

    More ids change no character but a last one that was not whole.
    """
    text = ''
    # The library gives up a whole run of byte pieces for one broken character in it.
    for is_bytes, run in itertools.groupby(ids, self._byte_of.__contains__):
      if is_bytes:
        text += bytes(self._byte_of[index] for index in run).decode('utf-8', 'replace')
      else:
        text += self._tokenizer.decode([self._id_here.get(index, index) for index in run], skip_special_tokens=False)
    return self.prefix.removed(text)


def _without_strip(decoder: Any) -> Any:
  """The decoder without the step that takes the space prefix off, which is no part of a run of pieces."""
  if isinstance(decoder, dict) and decoder.get('type') == 'Sequence':
    return {**decoder, 'decoders': [part for part in decoder.get('decoders') or [] if part.get('type') != 'Strip']}
  if isinstance(decoder, dict) and decoder.get('type') == 'Metaspace':
    return {**decoder, 'prepend_scheme': 'never', 'add_prefix_space': False}
  return decoder


def _without_prefix(settings: dict) -> tuple[SpacePrefix, Any, Any]:
  """Where the tokenizer puts a space before text; its pre-tokenizer and normalizer without that."""
  found: list[SpacePrefix] = []

  def stripped(part: Any) -> Any:
    if not isinstance(part, dict):
      return part
    kind = part.get('type')
    if kind == 'Sequence':
      name = 'pretokenizers' if 'pretokenizers' in part else 'normalizers'
      parts = [stripped(inner) for inner in part.get(name) or []]
      return {**part, name: [inner for inner in parts if inner is not None]}
    if kind == 'Metaspace':
      scheme = part.get('prepend_scheme') or ('always' if part.get('add_prefix_space', True) else 'never')
      found.append(SpacePrefix(where=scheme))
      return {**part, 'prepend_scheme': 'never', 'add_prefix_space': False}
    if kind == 'ByteLevel' and part.get('add_prefix_space'):
      found.append(SpacePrefix(where='always'))
      return {**part, 'add_prefix_space': False}
    if kind == 'Prepend' and part.get('prepend') == '▁':
      found.append(SpacePrefix(where='always', doubles=True))
      return None
    return part

  pre_tokenizer, normalizer = stripped(settings.get('pre_tokenizer')), stripped(settings.get('normalizer'))
  return next((prefix for prefix in found if prefix.where != 'never'), SpacePrefix()), pre_tokenizer, normalizer
