"""Sampled ids to text as they come: thoughts apart from speech, whole characters, stop strings."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from eijax.text.ports import ChatFormat, Tokenizer
from eijax.text.streaming import TextStream

_BROKEN = '\ufffd'  # What a character decodes to whose bytes are not all there.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
  """New text. log_probs: OpenAI's entries for the ids of the content that came with it."""

  content: str = ''
  reasoning: str = ''
  log_probs: tuple[dict[str, Any], ...] = ()


class SpokenStream:
  """The text of one response.

  What stands between think tags is reasoning, the rest is content; only control ids count
  as tags, so that text which spells one stays content. Stop strings end the content and are
  not part of it; in a thought they are not looked for.

  Attributes:
    num_tokens: ids taken so far.
    stopped: a stop string has ended the text.
  """

  def __init__(self, tokenizer: Tokenizer, chat_format: ChatFormat, stop: Sequence[str] = ()):
    self._format, self._stop = chat_format, tuple(stop)
    self._tokenizer = tokenizer
    self._open, self._close = tokenizer.think_ids
    self._thinking = chat_format.thought_opened
    self._begin_run()
    self._held = ''  # Content that may be the beginning of a stop string.
    self._thought = self._thinking
    self._spoken = False
    self.num_tokens = 0
    self.stopped = False

  def add(self, ids: Sequence[int], log_probs: Sequence[float]) -> Piece:
    """Take new ids, and give the text that is certain by now."""
    content, reasoning, entries = [], [], []
    for index, log_prob in zip(map(int, ids), map(float, log_probs)):
      self.num_tokens += 1
      if index in (self._open, self._close):
        self._flush(content, reasoning, last=True)
        self._begin_run()
        self._thinking = index == self._open
        self._thought |= self._thinking
      elif index not in self._format.stop_ids:
        self._run.append(index)
        self._new.append(index)
        if not self._thinking:
          entries.append(self._entry(log_prob))
      if self._stop and not self._thinking:
        self._flush(content, reasoning, last=False)
        if self.stopped:
          break
    self._flush(content, reasoning, last=False)
    return Piece(content=''.join(content), reasoning=''.join(reasoning), log_probs=tuple(entries))

  def end(self) -> Piece:
    """What was held back, once no more ids come."""
    content, reasoning = [], []
    self._flush(content, reasoning, last=True)
    if not self.stopped:
      content.append(self._held)
      self._held = ''
    return Piece(content=''.join(content), reasoning=''.join(reasoning))

  def _begin_run(self) -> None:
    self._run: list[int] = []  # Ids since the last think tag.
    self._new: list[int] = []  # Those of them whose text has not been asked for.
    self._text = TextStream(self._tokenizer)

  def _flush(self, content: list[str], reasoning: list[str], last: bool) -> None:
    """Move the run's new text to where it belongs. last: no id will complete its last character."""
    text = self._text.add(self._new) + (self._text.finish() if last else '')
    self._new = []
    if self._thinking:
      reasoning.append(text)
    elif not self.stopped:
      if self._thought and not self._spoken:
        text = text.lstrip()  # The blank line between a thought and the first word belongs to neither.
      self._spoken |= bool(text)
      content.append(self._up_to_stop(text))

  def _up_to_stop(self, text: str) -> str:
    text = self._held + text
    found = [place for place in map(text.find, self._stop) if place >= 0]
    if found:
      self.stopped, self._held = True, ''
      return text[:min(found)]
    size = max((size for stop in self._stop for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0)
    self._held = text[len(text) - size:]
    return text[:len(text) - size]

  def _entry(self, log_prob: float) -> dict[str, Any]:
    """Of the run's last id. Decoded behind the id before it, which keeps its leading space."""
    before = self._format.decode(self._run[-2:-1])
    token = self._format.decode(self._run[-2:])[len(before):]
    return {'token': token, 'logprob': log_prob, 'bytes': None if _BROKEN in token else list(token.encode()), 'top_logprobs': []}
