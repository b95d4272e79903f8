"""Strip-think: whatever a model does with its tags, a thought is never spoken."""

import itertools
import re

import pytest

from eijax.episodes.strip_think import strip_think


@pytest.mark.parametrize(
    'raw, visible, thought, has_thought, malformed',
    [
        ('Hello.', 'Hello.', '', False, False),
        ('<think>plan</think>Hello.', 'Hello.', 'plan', True, False),
        ('<think>\nplan\n</think>\n\nHello.\n', 'Hello.', 'plan', True, False),
        ('<THINK>plan</ThinK >Hello.', 'Hello.', 'plan', True, False),
        ('<thinking>plan</thinking>Hello.', 'Hello.', 'plan', True, False),
        ('Hello <think>plan</think>there.', 'Hello there.', 'plan', True, False),
        ('<think>a</think>Hello<think>b</think>.', 'Hello.', 'a\nb', True, False),
        # An empty thought.
        ('<think></think>Hello.', 'Hello.', '', False, True),
        ('<think>\n \n</think>Hello.', 'Hello.', '', False, True),
        ('<think>a</think><think></think>Hello.', 'Hello.', 'a', True, True),
        # Unclosed: cut, never leaked, and no thought either.
        ('<think>plan', '...', 'plan', False, True),
        ('Hello. <think>plan', 'Hello.', 'plan', False, True),
        ('<think>a</think>Hello. <think>b', 'Hello.', 'a\nb', True, True),
        # Stray and nested tags.
        ('Hello </think>there.', 'Hello there.', '', False, True),
        ('<think>a<think>b</think>c</think>Hello.', 'Hello.', 'abc', True, True),
        ('<think>I must use <think> tags</think>Hello.', 'Hello.', 'I must use  tags', True, True),
        ('<think/>Hello.', 'Hello.', '', False, True),
        # Tags without their end.
        ('<think plan</think>Hello.', 'Hello.', 'plan', True, True),
        ('<think>plan</think Hello.', 'Hello.', 'plan', True, True),
        ('Hello. <thi', 'Hello.', '', False, True),
        ('Hello. </think', 'Hello.', '', False, True),
        # Nothing was said.
        ('', '...', '', False, True),
        (' \n\u200b', '...', '', False, True),
        ('<think>plan</think>', '...', 'plan', True, True),
        ('...', '...', '', False, False),
        # No tags at all.
        ('2 < 3 and <thinker> is a word <t', '2 < 3 and <thinker> is a word <t', '', False, False),
    ],
)
def test_reply(raw, visible, thought, has_thought, malformed):
  reply = strip_think(raw)
  assert (reply.visible, reply.thought, reply.has_thought, reply.malformed) == (
      visible, thought, has_thought, malformed
  )
  assert reply.raw == raw and not reply.truncated


def test_truncated_reply_loses_the_beginning_of_a_tag():
  reply = strip_think('Hello. <', truncated=True)
  assert reply.visible == 'Hello.' and reply.truncated and reply.malformed
  assert not strip_think('Hello, and', truncated=True).malformed


def test_block_that_the_prompt_opened():
  reply = strip_think('plan</think>Hello.', opened=True)
  assert (reply.visible, reply.thought, reply.malformed) == ('Hello.', 'plan', False)
  assert strip_think('plan', opened=True).visible == '...'
  assert strip_think('', opened=True).visible == '...'


def test_no_order_of_tags_speaks_a_tag_or_a_closed_thought():
  parts = ('<think>', '</think>', 'a', '<think', '<thi')
  for combination in itertools.product(parts, repeat=5):
    raw = ''.join(combination)
    reply = strip_think(raw)
    assert reply.visible and not re.search(r'</?think\b', reply.visible)
    if raw.startswith('<think>') and '</think>' not in raw:
      assert reply.visible == '...'
