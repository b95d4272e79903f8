"""What each side sees of a talk. Source: arXiv 2606.15532, section 2.

The policy never sees the user's levels, reflections or appraisal; the user never sees
the policy's thoughts.
"""

import re
from collections.abc import Sequence

from eijax.episodes.state import Episode

Message = dict[str, str]

_SPOKEN = {
    'en': 'Say only what you would speak aloud, in a few plain sentences: no stage directions, no lists.',
    'zh': '只说你会开口讲的话，几句平常话即可，不写动作或旁白，不列条目。',
}
_THINK = {
    'en': 'First think briefly inside <think>...</think>; the other person never sees that part.',
    'zh': '先在 <think>...</think> 里简短思考，对方看不到这一部分。',
}
_PLACEHOLDER = {'en': '(You speak first.)', 'zh': '（由你先开口。）'}


def house_rules(language: str, thinking: bool) -> str:
  """The lines after the policy's role sheet. `language` is 'en' or 'zh'."""
  if language not in _SPOKEN:
    raise ValueError(f'language={language!r} must be one of {", ".join(_SPOKEN)}')
  if not thinking:
    return _SPOKEN[language]
  separator = ' ' if language == 'en' else ''
  return _THINK[language] + separator + _SPOKEN[language]


def policy_messages(
    episode: Episode, *, thinking: bool, keep_thoughts: bool = False
) -> list[Message]:
  """Chat messages from which the policy writes its next reply.

  In Charm the policy opens, so the first request holds the system message alone.

  Args:
    episode: an open talk.
    thinking: whether the house rules ask for a think block.
    keep_thoughts: whether the policy sees its own earlier thoughts again, as in the
      paper's evaluation (its training strips them).
  """
  scenario = episode.scenario
  system = f'{scenario.defender_prompt}\n\n{house_rules(scenario.language, thinking)}'
  messages = [{'role': 'system', 'content': system}]
  if scenario.opening_line is not None:
    messages.append({'role': 'user', 'content': scenario.opening_line})
  for turn in episode.turns:
    said = turn.reply.visible
    if keep_thoughts and turn.reply.thought:
      said = f'<think>\n{turn.reply.thought}\n</think>\n\n{said}'
    messages.append({'role': 'assistant', 'content': said})
    messages.append({'role': 'user', 'content': turn.simulator})
  return messages


def with_user_turn(messages: Sequence[Message]) -> list[Message]:
  """Insert a neutral first user message where the policy opened.

  For endpoints that refuse a talk without one. It belongs to the request only and never
  enters the history.
  """
  messages = list(messages)
  position = sum(message['role'] == 'system' for message in messages[:1])
  if position == len(messages) or messages[position]['role'] != 'user':
    is_chinese = any(re.search('[\u4e00-\u9fff]', message['content']) for message in messages)
    content = _PLACEHOLDER['zh' if is_chinese else 'en']
    messages.insert(position, {'role': 'user', 'content': content})
  return messages
