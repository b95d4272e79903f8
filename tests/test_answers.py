"""Every shape of simulator answer that was seen in the field, and hostile ones."""

import json
import random
import time

import pytest

from eijax.episodes.state import SimulatorAnswer
from eijax.simulator.answers import AnswerError, parse_answer

SOUND = '{"reflection": "r", "anger_delta": -3, "trust_delta": 2, "reply": "Go on.", "continue": "yes"}'
EXPECTED = SimulatorAnswer(reply='Go on.', anger_delta=-3, trust_delta=2, reflection='r')


@pytest.mark.parametrize(
    'text',
    [
        SOUND,
        f'Here is my answer:\n{SOUND}\nI hope that it fits.',
        f'Use {{braces}} like {{this: }} or {{}}. {SOUND} And {{so}} on.',
        f'```json\n{SOUND}\n```',
        f'```\n{SOUND}\n```\nDone.',
        f'<think>draft {{"reply": "no", "anger_delta": 9}} hm</think>{SOUND}',
        f'<think>{{"reply": "no", "anger_delta": 9, "trust_delta": 1}} </think>\n{SOUND}',
        f'I think {{"reply": "no", "anger_delta": 9}} </think> {SOUND}',
        f'<think>never closed, but {SOUND}',
        f'{{"reply": "first", "anger_delta": 1, "trust_delta": 1}}\nBetter:\n{SOUND}',
        f'{SOUND}\n{{"note": "done"}}',
        f'{SOUND} <think>and one',
        f'{{"answer": {SOUND}}}',
        f'[{SOUND}]',
        SOUND.replace('-3', '"-3"').replace(' 2', ' +2'),
        SOUND.replace('-3', '-3.0').replace(' 2', ' "+2.2"'),
        SOUND.replace('-3', '"−3"'),
        SOUND.replace('"continue": "yes"', '"continue": "yes",'),
        SOUND.replace('"trust_delta"', '// because {of} "that"\n"trust_delta"'),
        SOUND.replace('"reply"', '/* spoken, } */ "reply"').replace('-3,', '-3, # fell\n'),
        SOUND.replace('"anger_delta"', 'anger_delta').replace('"trust_delta"', "'trust_delta'"),
        SOUND.replace('"anger_delta"', '"Anger-Delta"').replace('"reply"', '"Reply "'),
        SOUND.replace('2, "reply"', '2\n "reply"'),
        SOUND.replace('"Go on."', '“Go on.”').replace(': -3,', '：-3，'),
        SOUND.replace('"continue": "yes"', '"continue": true'),
        SOUND.replace(', "continue": "yes"', ''),
        SOUND.replace('"yes"', 'yes'),
        SOUND.replace('"yes"', '"yes", "stop_reason": "none"'),
        SOUND[:-1],
        SOUND[:-6],
        SOUND.replace('"Go on."', '"\\u0000Go on.\\u0007"'),
    ],
)
def test_shape_is_read(text):
  assert parse_answer(text) == EXPECTED


@pytest.mark.parametrize(
    'written, read',
    [
        (r"it\'s \`fine\`", "it's `fine`"),
        ('one\n\ttwo', 'one\n\ttwo'),
        (r'one\ntwo \"quoted\" \\ \/', 'one\ntwo "quoted" \\ /'),
        ('he said "no", and left', 'he said "no", and left'),
        ('"Never" is what he said', '"Never" is what he said'),
        ('see http://x.y // no comment, {or} [that]', 'see http://x.y // no comment, {or} [that]'),
        (r'\ud83d\ude42 ok', '🙂 ok'),
        (r'half \ud83d', 'half \ufffd'),
        (r'odd \x and \u12', 'odd x and u12'),
        ('a </think> b <think> c', 'a </think> b <think> c'),
        ('你好，“真的”吗', '你好，“真的”吗'),
        ('```json', '```json'),
    ],
)
def test_text_of_the_reply(written, read):
  text = '{"reflection": {"step": ["a", 1]}, "anger_delta": +1, "trust_delta": 0, "reply": "%s", }' % written
  answer = parse_answer(text)
  assert answer.reply == read
  assert answer.anger_delta == 1 and answer.reflection == {'step': ['a', 1]}


def test_nested_keys_of_the_reflection_do_not_count():
  text = '{"reflection": {"anger_delta": 9, "reply": "inner"}, "anger_delta": 1, "trust_delta": 1, "reply": "outer"}'
  assert (parse_answer(text).reply, parse_answer(text).anger_delta) == ('outer', 1)


def test_cut_off_reply_is_kept_and_cut_off_number_is_not():
  cut = '{"reflection": "r", "anger_delta": -3, "trust_delta": 2, "reply": "Go on, I am lis'
  assert parse_answer(cut).reply == 'Go on, I am lis'
  for text in (
      '{"reflection": "r", "reply": "Go", "anger_delta": -3, "trust_delta": 1',
      '{"reflection": "r", "reply": "Go", "anger_delta": -3, "trust_',
      '{"reflection": "r", "reply": "Go", "anger_delta": -3,',
      '{"reflection": "r and',
      '{"reflection": "r", "anger_delta": -3, "trust_delta": 2, "reply":',
  ):
    with pytest.raises(AnswerError):
      parse_answer(text)


def test_one_delta_of_a_whole_object_is_enough():
  answer = parse_answer('{"reply": "Go", "anger_delta": -3, "anger": 99}')
  assert (answer.anger_delta, answer.trust_delta, answer.anger) == (-3, None, None)


def test_levels_count_only_without_deltas():
  answer = parse_answer('{"reply": "Go", "anger": "55", "trust": 20.4}')
  assert (answer.anger_delta, answer.trust_delta, answer.anger, answer.trust) == (None, None, 55, 20)
  answer = parse_answer('{"reply": "Go", "anger_delta": null, "trust_delta": null, "anger": 1, "trust": 2}')
  assert (answer.anger, answer.trust) == (1, 2)


@pytest.mark.parametrize('word', ['"no"', '"No."', 'no', 'false', '"否"', '"stop"'])
def test_stop(word):
  answer = parse_answer(SOUND.replace('"yes"', f'{word}, "stop_reason": "settled"'))
  assert answer.stop and answer.stop_reason == 'settled'


@pytest.mark.parametrize(
    'text, reason',
    [
        ('', 'no JSON object'),
        ('I am angry.', 'no JSON object'),
        ('{"note": 1}', 'no JSON object'),
        ('[1, 2]', 'no JSON object'),
        ('{"reply": "Go"}', 'neither'),
        ('{"reply": "Go", "anger_delta": null}', 'neither'),
        ('{"anger_delta": 1, "trust_delta": 1}', 'reply must'),
        ('{"anger_delta": 1, "trust_delta": 1, "reply": ""}', 'reply must'),
        ('{"anger_delta": 1, "trust_delta": 1, "reply": 5}', 'reply must'),
        ('{"reply": "Go", "anger_delta": true, "trust_delta": 1}', 'anger_delta must be an integer, not a bool'),
        ('{"reply": "Go", "anger_delta": NaN, "trust_delta": 1}', 'anger_delta must'),
        ('{"reply": "Go", "anger_delta": Infinity, "trust_delta": 1}', 'anger_delta must'),
        ('{"reply": "Go", "anger_delta": 1e999, "trust_delta": 1}', 'anger_delta must'),
        ('{"reply": "Go", "anger_delta": "some", "trust_delta": 1}', "anger_delta must be an integer, not 'some'"),
        ('{"reply": "Go", "anger_delta": [1], "trust_delta": 1}', 'not a list'),
        ('{"reply": "Go", "anger_delta": {"value": 1}, "trust_delta": 1}', 'not a dict'),
        ('{"reply": "Go", "anger_delta": "10**9", "trust_delta": 1}', r"not '10\*\*9'"),
        ('{"reply": "Go", "anger_delta": 1e400, "trust_delta": 1}', 'must be a finite integer'),
        ('{"reply": "Go", "anger_delta": "1e400", "trust_delta": 1}', 'must be a finite integer'),
        ('{"reply": "Go", "anger_delta": "nan", "trust_delta": 1}', 'must be a finite integer'),
        ('{"reply": "Go", "anger_delta": "1_0", "trust_delta": 1}', "not '1_0'"),
        ('{"reply": "Go", "anger_delta": "0x10", "trust_delta": 1}', "not '0x10'"),
        ('{"reply": "Go", "anger_delta": "-3 of 10", "trust_delta": 1}', "not '-3 of 10'"),
        ('{"reply": "Go", "anger_delta": 1, "trust_delta": [true]}', 'trust_delta must be an integer, not a list'),
        ('{"reply": "Go", "anger_delta": 1, "trust_delta": false}', 'trust_delta must be an integer, not a bool'),
        ('{"reply": ["Go", 1], "anger_delta": 1, "trust_delta": 1}', 'reply must'),
        ('{"reply": {"text": "Go"}, "anger_delta": 1, "trust_delta": 1}', 'reply must'),
        ('{"reply": "' + 'Go. ' * 2000 + '", "anger_delta": 1, "trust_delta": 1}', 'reply has 7999 characters'),
    ],
)
def test_unusable_answer_says_why(text, reason):
  with pytest.raises(AnswerError, match=reason):
    parse_answer(text)


def test_the_last_of_equal_keys_counts_however_the_object_is_read():
  doubled = SOUND.replace('"anger_delta"', '"anger_delta": 9, "anger_delta"')
  assert parse_answer(doubled) == EXPECTED
  assert parse_answer(doubled[:-1] + ', }') == EXPECTED  # By the reader of broken objects.


@pytest.mark.parametrize(
    'reflection', ['[' * 900 + ']' * 900, '{"a":' * 300 + '1' + '}' * 300, f'"{"word " * 5000}"', '{"a": NaN, "b": 1e999}'],
)
def test_endless_or_deep_reflection_stays_writable_and_short(reflection):
  answer = parse_answer(SOUND.replace('"r"', reflection))
  assert (answer.anger_delta, answer.trust_delta, answer.reply) == (-3, 2, 'Go on.')
  assert len(json.dumps(answer.reflection, allow_nan=False)) < 10_000


@pytest.mark.parametrize('number', ['9' * 30, '9' * 6000, '-' + '9' * 40, '1e15', '123456'])
def test_huge_number_is_clipped_or_refused(number):
  text = SOUND.replace('-3', number)
  answer = parse_answer(text)
  assert abs(answer.anger_delta) == 1000


@pytest.mark.parametrize(
    'text',
    ['{' * 20_000, '{"a":' * 5_000, '{"a' * 5_000, '[' * 20_000, '{"a": "' + '\\' * 20_001, '{"a": "b" ' * 3000,
     '<think>' * 3000 + SOUND, '{"reply": "' + '"' * 20_000],
)
def test_hostile_text_takes_no_time(text):
  start = time.monotonic()
  try:
    parse_answer(text)
  except AnswerError:
    pass
  # Takes milliseconds; the bound only excludes quadratic work on a busy machine.
  assert time.monotonic() - start < 2.0


def test_damaged_text_never_crashes_and_stays_storable():
  rng = random.Random(0)
  alphabet = '{}[]",:\\\n\'/ #0+-eé“”truNaN'
  for _ in range(3000):
    chars = list(SOUND)
    for _ in range(rng.randint(1, 8)):
      position = rng.randrange(len(chars))
      chars[position] = rng.choice(('', rng.choice(alphabet), chars[position] + rng.choice(alphabet)))
    try:
      answer = parse_answer(''.join(chars))
    except AnswerError:
      continue
    json.dumps(answer.reflection, allow_nan=False)
    assert answer.reply and isinstance(answer.stop, bool)
    assert all(v is None or type(v) is int for v in (answer.anger_delta, answer.trust_delta, answer.anger))
