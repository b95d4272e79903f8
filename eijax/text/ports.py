"""What a policy needs of its tokenizer and its chat format; ours and those of Hugging Face folders fill both."""

from collections.abc import Mapping, Sequence
import os
from typing import Protocol


class ChatFormat(Protocol):
  """A talk as the policy reads it, in token ids.

  stop_ids: ids that end a response; the first closes a turn.
  thought_opened: whether every prompt ends inside a think block that the format opened.
  """

  stop_ids: tuple[int, ...]
  thought_opened: bool

  def prompt(
      self, messages: Sequence[Mapping[str, str]], own: Sequence[Sequence[int] | None] | None = None, *, keep_thoughts: bool = False
  ) -> list[int]:
    """Ids after which the policy speaks.

    Args:
      messages: chat messages (role, content). No content can become control tokens.
      own: for each assistant message in order the ids that were sampled for it, which
        go in as they are, less thought and stop token; None encodes its content. By
        default all are encoded.
      keep_thoughts: whether sampled ids keep their thoughts.
    """

  def response(self, text: str) -> list[int]:
    """Ids of a demonstrated response, stop token included; a thought at its head gets the policy's own think tags."""

  def decode(self, sampled: Sequence[int]) -> str:
    """Text of a response: think tags are shown, other control tokens are dropped."""


class Tokenizer(Protocol):
  """Text and ids.

  vocab_size: largest id plus one; a policy may have more embedding rows.
  think_ids: ids of the tags that open and close a thought; None for one that is not a control token.
  """

  vocab_size: int
  think_ids: tuple[int | None, int | None]

  def encode(self, text: str) -> list[int]:
    """Ids of plain text; a control token spelled out in it becomes ordinary pieces."""

  def decode(self, ids: Sequence[int]) -> str:
    """Text of ids: think tags are shown, other control tokens are dropped."""

  def sampleable_ids(self, thinking: bool) -> list[int]:
    """Ids that a policy may sample: text, stop tokens and, if `thinking`, the think tags."""

  def chat_format(self, *, thinking: bool) -> ChatFormat:
    """The format of a talk; `thinking` is whether the policy may think before it speaks."""

  def save(self, folder: str | os.PathLike) -> None:
    """Write the files from which `eijax.text.load.load_tokenizer` reads it back."""
