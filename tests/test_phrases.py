"""Phrases are found exactly where one regular expression without regard to case would find them."""

import json
import pathlib
import random
import re
import sys

import pytest

from eijax.episodes import imitation, phrases
from eijax.simulator.embedded import lexicon

ALL = {f'lexicon.{name}': value for name, value in vars(lexicon).items() if isinstance(value, phrases.Phrases)}
ALL |= {f'imitation.{name}': value for name, value in imitation._PATTERNS.items()}
# Letters with odd small forms or none, characters that look or sort like others, and what patterns are about.
ODD = ('\u017f', '\u0131', '\u0130', '\u212a', 'ß', 'ﬀ', 'Σ', 'é', '—', '…', '。', '，', '我', '\n', '!', '?', '(', ':', '"', '{', '<', '5', '+3', "'", '_')

ATTACKS = [json.loads(line)['text'] for line in pathlib.Path(__file__).with_name('imitation_attacks.jsonl').read_text().splitlines()]


def _texts(pattern: str, rng: random.Random, num: int):
  """Texts of the pattern's own words, in and out of order, in all cases, between odd characters."""
  pieces = re.findall(r"[a-z' ]+|[^\x00-\x7f]+", re.sub(r'\\.|\[.*?\]', '|', pattern))
  pieces += ['i ', 'you ', ' the ', ' is ', ' me', ' to ']
  for _ in range(num):
    start = rng.randrange(len(pieces))
    run = pieces[start:start + rng.randint(1, 6)] if rng.random() < 0.6 else rng.choices(pieces, k=rng.randint(1, 8))
    if rng.random() < 0.4:
      run.insert(0, rng.choice(ATTACKS))
    for _ in range(rng.randint(0, 2)):
      run.insert(rng.randint(0, len(run)), rng.choice(ODD))
    text = rng.choice(('', ' ')).join(run)
    if rng.random() < 0.3:
      text = text.replace('s', '\u017f', 1) if rng.random() < 0.5 else text.replace('i', '\u0131', 1)
    yield rng.choice((text, text, text.upper(), text.title()))


@pytest.mark.parametrize('name', ALL)
def test_the_same_is_found_as_by_one_pattern_without_regard_to_case(name):
  flags = re.M if name.startswith('imitation') else 0
  plain = re.compile(ALL[name].pattern, re.I | flags)
  found = 0
  for text in _texts(ALL[name].pattern, random.Random(name), 1000):
    assert ALL[name].search(text) == bool(plain.search(text)), repr(text)
    found += bool(plain.search(text))
  assert 10 <= found <= 999  # Neither answer was always right.


def test_no_other_character_is_taken_for_an_ascii_letter():
  # What _LOOSE lists is all that there is, and small letters stay letters.
  letter = re.compile('[a-z]', re.I)
  taken = {chr(code) for code in range(0x80, sys.maxunicode + 1) if letter.match(chr(code))}
  assert taken == set(map(chr, phrases._LOOSE))
  word = re.compile(r'\w')
  for code in range(0x80, sys.maxunicode + 1):
    small = chr(code).translate(phrases._LOOSE).lower()
    assert bool(word.match(chr(code))) == bool(word.match(small)) and not small.isascii() | (len(small) != 1) or chr(code) in taken


@pytest.mark.parametrize('pattern, cut', [
    ('a|b', ['a', 'b']),
    (r'a\|b', [r'a\|b']),
    ('a(?:b|c)|d', ['a(?:b|c)', 'd']),
    (r'[|)]x|y', ['[|)]x', 'y']),
    (r'[]|]|[^]|]|[^\]|]', ['[]|]', '[^]|]', r'[^\]|]']),
    (r'\(a|b\)', [r'\(a', r'b\)']),
    ('', ['']),
])
def test_patterns_are_cut_outside_groups_and_classes(pattern, cut):
  assert list(phrases.alternatives(pattern)) == cut


@pytest.mark.parametrize('pattern, needs', [
    ('算了', True), ('我(?:觉得|a)', True), ('a', False), ('[。!]', False), ('(?:我|me)', False), ('我?x', False),
    ('我*x', False), ('我{0,2}x', False), ('我+x', True), ('(?:(?:a|我)b)c', False), (r'\(我\)', True),
    ('(?:我|(?:你|他)a)', True), ('(?:我|你)?x', False), ('[我你]', True), ('[^我]', False), ('(?!我)x', False),
    ('(?<!我)x', False), ('[a我]', False), ('(?:)x', False),
])
def test_what_only_other_than_ascii_texts_can_hold(pattern, needs):
  assert phrases._needs_more_than_ascii(pattern) == needs


@pytest.mark.parametrize('part', ['Sorry', '(a)b', '[A-F]'])
def test_parts_that_cannot_be_joined_are_refused(part):
  with pytest.raises(ValueError, match='small letters'):
    phrases.Phrases(part)


def test_a_phrase_keeps_the_edge_that_it_begins_with():
  odd = phrases.Phrases(r'\ba', '(?<![a-z])b', r'(?<!\w)c', r'\b我', '(?<![a-z])你', 'd')
  assert [odd.search(text) for text in ('xa', 'xb', '1b', '1c', '-c', '一我', '-我', 'x你', '1你', 'xd', '')] == [
      False, False, True, False, True, False, True, False, True, True, False]


def test_escapes_in_capitals_are_no_capital_letters():
  assert phrases.Phrases(r'^\W*a\S').search('...Ab')
