"""Chat JSONL files."""

import os

from eijax import jsonl
from eijax.conversations.record import Conversation, parse_conversation
from eijax.errors import DataError


def load_jsonl(path: str | os.PathLike) -> list[Conversation]:
  """All conversations of a file, one JSON object a line; blank lines are skipped.

  Raises:
    DataError: the file cannot be read, is empty, or a line breaks a rule (see `parse_conversation`).
  """
  conversations = [parse_conversation(obj, f'{path}:{number}') for number, obj in jsonl.read(path)]
  if not conversations:
    raise DataError(f'{path}: holds no conversation; write one {{"messages": [...]}} a line')
  return conversations
