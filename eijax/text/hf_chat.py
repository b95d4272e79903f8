"""A talk in token ids by a model's own chat template.

The ids are those that transformers' apply_chat_template gives for the visible talk, with
two differences: what the policy sampled stays as it was sampled, and no message can write
a control token. The template renders the whole talk for each prompt, since it may treat
earlier turns otherwise than the last (Qwen3 drops their thoughts).
"""

from collections.abc import Mapping, Sequence
import functools
import re
from typing import Protocol

from eijax.episodes.views import with_user_turn
from eijax.errors import DataError
from eijax.text.chat_template import ChatTemplate
from eijax.text.control_tokens import ControlTokens, unused_marks
from eijax.text.pieces import THINK_CLOSE, THINK_OPEN

Message = Mapping[str, str]
_SYSTEM, _USER, _REPLY = 'Probe of the sheet.', 'Probe of a line.', 'Probe of a reply.'
_CACHED_TURNS = 8192
# A thought at the head of an own message, as `eijax.episodes.views` writes it where thoughts are kept.
_THOUGHT = re.compile(rf'\s*{THINK_OPEN}.*?{THINK_CLOSE}', re.DOTALL)


class _TemplatedTokenizer(Protocol):
  """What the format needs of `HfTokenizer`."""

  control_tokens: ControlTokens
  template: ChatTemplate
  eos_ids: tuple[int, ...]

  def encode_part(self, text: str, *, at_start: bool) -> list[int]:
    ...

  def encode_tail(self, text: str) -> list[int]:
    ...

  def decode(self, ids: Sequence[int]) -> str:
    ...

  def begins_with_space(self, index: int) -> bool:
    ...


class HfChatFormat:
  """Fills `eijax.text.ports.ChatFormat` with a template.

  What the template takes is found by trying it once: whether it has a system role (else
  the sheet goes in front of the first user message), and whether it needs a user to speak
  first (else a neutral line stands in; see `eijax.episodes.views.with_user_turn`).

  Args:
    tokenizer: of the same folder.
    thinking: what the template is told as `enable_thinking`.
  Raises:
    DataError: the template takes no talk of a user and an assistant, or ends its turns by no token.
  """

  def __init__(self, tokenizer: _TemplatedTokenizer, *, thinking: bool):
    self._tokenizer, self._thinking = tokenizer, thinking
    self._controls, self._template = tokenizer.control_tokens, tokenizer.template
    self._control_ids = frozenset(self._controls.ids.values())
    user, reply = {'role': 'user', 'content': _USER}, {'role': 'assistant', 'content': _REPLY}
    asked, answered = self._render([user], prompt=True), self._render([user, reply], prompt=False)
    if _USER not in asked or _REPLY not in answered:
      raise DataError(f'{self._template.path}: the chat template leaves messages out; use one that shows user and assistant turns')
    self._has_system = self._shows([{'role': 'system', 'content': _SYSTEM}, user], _SYSTEM)
    self._needs_user = not self._opens_alone(reply, user)
    before, _, after = answered.partition(_REPLY)
    # A template may write the space that the policy's first piece brings along (Llama 2).
    self._writes_space = before == asked + ' '
    self.stop_ids = self._found_stop_ids(after)
    # Every later prompt of a talk asks for its earlier turns again.
    self._spoken = functools.lru_cache(_CACHED_TURNS)(self._find_spoken)
    self.thought_opened = asked.rstrip().endswith(THINK_OPEN)

  def _found_stop_ids(self, after_reply: str) -> tuple[int, ...]:
    end = next((part for part in self._controls.split(after_reply) if isinstance(part, int)), None)
    ids = self._tokenizer.eos_ids if end is None else (end, *self._tokenizer.eos_ids)
    if not ids:
      raise DataError(f'{self._template.path}: no token ends a turn, neither in the chat template nor as eos_token_id of '
                      'generation_config.json; set eos_token_id there')
    return tuple(dict.fromkeys(ids))

  def _render(self, messages: Sequence[Message], prompt: bool) -> str:
    return self._template.render(messages, add_generation_prompt=prompt, enable_thinking=self._thinking)

  def _shows(self, messages: Sequence[Message], *contents: str) -> bool:
    try:
      rendered = self._render(messages, prompt=True)
    except DataError:
      return False
    return all(content in rendered for content in contents)

  def _opens_alone(self, reply: Message, user: Message) -> bool:
    sheet = [{'role': 'system', 'content': _SYSTEM}] if self._has_system else []
    shown = [_SYSTEM] if sheet else []
    # Without a system role there is nothing to open from: the sheet itself needs a user turn.
    return bool(sheet) and self._shows(sheet, *shown) and self._shows([*sheet, reply, user], *shown, _REPLY, _USER)

  def prompt(self, messages: Sequence[Message], own: Sequence[Sequence[int] | None] | None = None) -> list[int]:
    """Ids of the messages with the generation prompt; see `eijax.text.ports`.

    Raises:
      DataError: the template refuses the talk.
    """
    messages = self._shaped(messages)
    mark, splice = unused_marks([self._template.source, *(message['content'] for message in messages)], 2)
    sampled_ids = iter(own if own is not None else [None] * len(messages))
    spliced, written = [], []
    for message in messages:
      is_own = message['role'] == 'assistant'
      sampled = next(sampled_ids) if is_own else None
      ids = None if sampled is None else self._spoken(tuple(map(int, sampled)), message['content'])
      if ids is None:
        content = self._marked_reply(message['content'], mark) if is_own else self._controls.marked(message['content'], mark)
      else:
        content = f'{splice}{len(spliced)}{splice}'
        spliced.append(ids)
      written.append({**message, 'content': content})
    return self._encoded(self._render(written, prompt=True), spliced, mark, splice)

  def _shaped(self, messages: Sequence[Message]) -> list[Message]:
    """The messages in a shape that the template takes."""
    messages = list(messages)
    if self._needs_user:
      first_to_speak = next((message['role'] for message in messages if message['role'] != 'system'), None)
      if first_to_speak != 'user':
        # In the language of the sheet alone, so that a talk keeps the line that it began with.
        messages = [*with_user_turn(messages[:1]), *messages[1:]]
    if not self._has_system and messages[0]['role'] == 'system':
      sheet, first, *rest = messages
      messages = [{**first, 'content': f'{sheet["content"]}\n\n{first["content"]}'}, *rest]
    return messages

  def _marked_reply(self, content: str, mark: str) -> str:
    """An own message without ids: the tags of a thought at its head are the policy's, the rest is plain."""
    thought = _THOUGHT.match(content)
    if thought is None:
      return self._controls.marked(content, mark)
    inner = thought.group().strip()[len(THINK_OPEN):-len(THINK_CLOSE)]
    return (THINK_OPEN + self._controls.marked(inner, mark) + THINK_CLOSE
            + self._controls.marked(content[thought.end():], mark))

  def _find_spoken(self, sampled: tuple[int, ...], visible: str) -> Sequence[int] | None:
    """The sampled ids whose text the other side saw; None where they are no tail of the response."""
    ids = [index for index in sampled if index not in self.stop_ids]
    if self._is_text_of(ids, visible):
      return ids
    # The thought and the whitespace after it go, as templates drop them: the tail that is just long enough.
    low, high = 0, len(ids)
    while low < high:
      middle = (low + high) // 2
      if len(self._tokenizer.decode(ids[middle:]).strip()) > len(visible.strip()):
        low = middle + 1
      else:
        high = middle
    tail = ids[low:]
    while tail and not self._tokenizer.decode(tail[:1]).strip():
      tail = tail[1:]
    return tail if self._is_text_of(tail, visible) else None

  def _is_text_of(self, ids: Sequence[int], visible: str) -> bool:
    return (bool(ids) and self._control_ids.isdisjoint(ids)
            and self._tokenizer.decode(ids).strip() == visible.strip())

  def _encoded(self, rendered: str, spliced: Sequence[Sequence[int]], mark: str, splice: str) -> list[int]:
    """Ids of a rendered talk, with ids in place of the splices."""
    result: list[int] = []
    starts_text = True  # Of the stretch between two control tokens.
    parts = rendered.split(splice)
    for number, part in enumerate(parts):
      if number % 2:
        result += spliced[int(part)]
        starts_text = False
        continue
      following = spliced[int(parts[number + 1])] if number + 1 < len(parts) else ()
      if self._writes_space and following and part.endswith(' ') and self._tokenizer.begins_with_space(following[0]):
        part = part[:-1]
      for piece in self._controls.split(part):
        if isinstance(piece, int):
          result.append(piece)
          starts_text = True
          continue
        text = piece.replace(mark, '')
        result += (self._tokenizer.encode_part(text, at_start=not result) if starts_text else self._tokenizer.encode_tail(text))
        starts_text = False
    return result

  def response(self, text: str) -> list[int]:
    """Ids of a demonstrated response, stop token included; a thought at its head gets the model's own think tags."""
    mark, splice = unused_marks([text], 2)
    return [*self._encoded(self._marked_reply(text, mark), (), mark, splice), self.stop_ids[0]]

  def decode(self, sampled: Sequence[int]) -> str:
    """Text of a response: think tags are shown, other control tokens are dropped."""
    return self._tokenizer.decode(sampled)
