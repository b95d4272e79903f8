"""OpenAI's JSON shapes of answers."""

from collections.abc import Iterable, Mapping
import secrets
import time
from typing import Any

from eijax.serving.chat_service import Delta


def models(name: str, created: int) -> dict[str, Any]:
  return {'object': 'list', 'data': [model(name, created)]}


def model(name: str, created: int) -> dict[str, Any]:
  return {'id': name, 'object': 'model', 'created': created, 'owned_by': 'eijax'}


def head(name: str, *, stream: bool) -> dict[str, Any]:
  """What all chunks of an answer, or its one body, have in common."""
  return {'id': f'chatcmpl-{secrets.token_hex(12)}', 'object': 'chat.completion.chunk' if stream else 'chat.completion',
          'created': int(time.time()), 'model': name}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
  return {'prompt_tokens': prompt_tokens, 'completion_tokens': completion_tokens, 'total_tokens': prompt_tokens + completion_tokens}


def choices(deltas: Iterable[Delta], n: int, logprobs: bool) -> list[dict[str, Any]]:
  """The choices of a whole answer. A thought stands in reasoning_content, as with other servers of reasoning models."""
  result = [{'index': index, 'message': {'role': 'assistant', 'content': '', 'refusal': None}, 'logprobs': {'content': []},
             'finish_reason': None} for index in range(n)]
  for delta in deltas:
    choice = result[delta.index]
    choice['message']['content'] += delta.piece.content
    if delta.piece.reasoning:
      choice['message']['reasoning_content'] = choice['message'].get('reasoning_content', '') + delta.piece.reasoning
    choice['logprobs']['content'] += delta.piece.log_probs
    choice['finish_reason'] = delta.finish_reason
  if not logprobs:
    for choice in result:
      choice['logprobs'] = None
  return result


def first_chunk(common: Mapping[str, Any], n: int) -> dict[str, Any]:
  """Says who speaks, before anything is said."""
  return {**common, 'choices': [_chunk_choice(index, {'role': 'assistant', 'content': ''}) for index in range(n)]}


def chunks(common: Mapping[str, Any], delta: Delta, logprobs: bool) -> Iterable[dict[str, Any]]:
  """Chunks of one delta: its text, if there is any, then its end, if it is one."""
  piece = delta.piece
  entries = {'content': list(piece.log_probs)} if logprobs and piece.log_probs else None
  told = {name: text for name, text in (('reasoning_content', piece.reasoning), ('content', piece.content)) if text}
  if told or entries:
    yield {**common, 'choices': [_chunk_choice(delta.index, told, entries)]}
  if delta.finish_reason is not None:
    yield {**common, 'choices': [_chunk_choice(delta.index, {}, None, delta.finish_reason)]}


def _chunk_choice(index: int, delta: dict, logprobs: dict | None = None, finish_reason: str | None = None) -> dict[str, Any]:
  return {'index': index, 'delta': delta, 'logprobs': logprobs, 'finish_reason': finish_reason}
