"""Conversations from chat JSONL files and from tensorflow-datasets, by the same rules.

A data set has a feature `messages`: a sequence of {'role', 'content'}, or the same as JSON text. It is read through
its data source: no TensorFlow is needed. API: https://www.tensorflow.org/datasets/data_source
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from eijax.conversations.load import load_jsonl
from eijax.conversations.record import Conversation, parse_conversation
from eijax.datasets.source import PREPARED, prepared_builder, tfds_library
from eijax.errors import DataError, UsageError

_FILES = ('.jsonl', '.json', '.ndjson')
_FEATURE = 'messages'


def load_chats(source: str, split: str, data_dir: str = '') -> list[Conversation]:
  """Load all conversations of a source.

  Args:
    source: a chat JSONL file; a folder that tensorflow-datasets has prepared; or the name of a prepared data set.
    split: of a data set, e.g. 'train' or 'train[:10%]'; a file is read whole.
    data_dir: where prepared data sets stand; empty is TFDS_DATA_DIR or ~/tensorflow_datasets.
  Raises:
    UsageError: no such data set or split, or the extra `data` is not installed.
    DataError: the file cannot be read, or a conversation breaks a rule.
  """
  path = pathlib.Path(source)
  if path.is_file() or path.suffix in _FILES:
    return load_jsonl(source)
  return _load_data_set(source, split, data_dir or None)


def _load_data_set(source: str, split: str, data_dir: str | None) -> list[Conversation]:
  tfds = tfds_library()
  builder = _builder(tfds, source, data_dir)
  if _FEATURE not in (builder.info.features or {}):
    raise DataError(f'{source}: feature `{_FEATURE}` is missing (it has {", ".join(builder.info.features or ()) or "none"}), so '
                    'it holds no chats; name another data set, or write it as chat JSONL')
  try:
    examples = builder.as_data_source(split)
  except (ValueError, KeyError, AssertionError) as error:  # No such split, a slice that is none, nothing prepared.
    first = str(error).strip().partition('\n')[0]
    raise UsageError(f'split={split!r} of {source} cannot be read ({first}); '
                     f'use one of {", ".join(builder.info.splits) or "none: prepare the data set first"}') from None
  conversations = []
  for index, example in enumerate(examples):
    where = f'{builder.info.full_name} {split} [{index}]'
    conversations.append(parse_conversation({'messages': _messages(example[_FEATURE], where)}, where))
  if not conversations:
    raise DataError(f'{source}: split {split} holds no conversation; name another split')
  return conversations


def _builder(tfds, source: str, data_dir: str | None):
  folder = pathlib.Path(source)
  if not folder.is_dir():
    return prepared_builder(tfds, source, data_dir)
  if not (folder / PREPARED).is_file():
    raise UsageError(f'data={source!r} is a folder without {PREPARED}, so tensorflow-datasets has not prepared it; '
                     'name a chat JSONL file, or the folder of one version of a data set')
  return tfds.builder_from_directory(os.fspath(folder))


def _messages(value: Any, where: str) -> Any:
  """The messages of an example as plain data; whether they keep the rules is for the reader to say."""
  if isinstance(value, Mapping):  # A sequence of dicts comes as a dict of sequences.
    names, columns = list(value), [list(column) for column in value.values()]
    return [dict(zip(names, map(_text, row))) for row in zip(*columns)]
  if isinstance(value, (bytes, str)):
    try:
      return json.loads(value)
    except ValueError as error:
      raise DataError(f'{where}: field `{_FEATURE}` is no JSON ({error}); prepare the data set anew') from None
  return [{name: _text(part) for name, part in item.items()} if isinstance(item, Mapping) else item for item in value]


def _text(value: Any) -> Any:
  return value.decode('utf-8', 'replace') if isinstance(value, bytes) else value
