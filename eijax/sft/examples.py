"""Conversations to segments that the learner reads, and what did not fit."""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from eijax.conversations.encode import demonstrations
from eijax.conversations.record import Conversation
from eijax.errors import DataError
from eijax.learning.packing import Segment
from eijax.learning.supervised import segments_of
from eijax.text.ports import ChatFormat

_NO_LOG_PROB = np.zeros(1, np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
  """What became of a set of conversations.

  segments: in the order of the conversations. conversations, turns, tokens: learned from; tokens are those of
  assistant turns, each with its stop token. cut: conversations that lost their last turns, turns_left_out in all.
  dropped: conversations of which nothing is learned. thoughts_left_out: of turns that are learned without them.
  """

  segments: list[Segment]
  conversations: int
  turns: int
  tokens: int
  cut: int
  turns_left_out: int
  dropped: int
  thoughts_left_out: int

  def counts(self) -> dict[str, int]:
    """The numbers, with those of segments and of all positions."""
    numbers = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != 'segments'}
    return {**numbers, 'segments': len(self.segments), 'positions': sum(map(len, self.segments))}


def make_examples(
    conversations: Sequence[Conversation], chat_format: ChatFormat, *, max_length: int, too_long: str, thinking: bool,
    name: str, on_each: Callable[[], object] = lambda: None,
) -> Examples:
  """Encode conversations.

  A turn whose prompt and response exceed `max_length` positions ends its conversation: with too_long='cut' the turns
  before it are learned, with 'drop' none of them.

  Args:
    name: of the set, for messages.
    on_each: called after each conversation.
  Raises:
    DataError: the template refuses a conversation, or nothing is left.
  """
  segments, turns, numbers = [], 0, dict(conversations=0, cut=0, turns_left_out=0, dropped=0, thoughts_left_out=0)
  for conversation in conversations:
    kept, left_out = demonstrations(conversation, chat_format, thinking=thinking, max_tokens=max_length + 1)
    if left_out and too_long == 'drop':
      kept = []
    numbers['conversations'] += bool(kept)
    numbers['dropped'] += not kept
    numbers['cut'] += bool(kept and left_out)
    numbers['turns_left_out'] += conversation.num_replies - len(kept)
    if not thinking:
      replies = [message for message in conversation.messages if message.role == 'assistant']
      numbers['thoughts_left_out'] += sum(reply.has_thought for reply in replies[:len(kept)])
    turns += len(kept)
    segments += map(_light, segments_of([(turn.prompt_ids, turn.response_ids) for turn in kept], max_length))
    on_each()
  if not segments:
    raise DataError(f'none of the {len(conversations)} {name} conversations fits rows of {max_length} tokens'
                    f'{" whole (too_long=drop)" if too_long == "drop" else ""}; raise the last of row_lengths')
  return Examples(segments=segments, turns=turns, tokens=sum(int(s.loss_mask.sum()) for s in segments), **numbers)


def _light(segment: Segment) -> Segment:
  """The segment in five bytes a position: a large set stays in memory, and demonstrations need no more.

  Tokens and targets are views of one array already. What only sampled turns have stands as one number.
  """
  return dataclasses.replace(segment, advantages=segment.loss_mask, behavior_log_probs=np.broadcast_to(_NO_LOG_PROB, len(segment)))
