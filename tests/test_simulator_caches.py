"""What is remembered between requests changes no answer, mixes up no sheets, and has a bound."""

import concurrent.futures
import dataclasses
import functools
import gc
import random
import re
import sys
import time

import pytest
import simulator_cards as cards

from eijax.episodes import protocol
from eijax.simulator import prompts
from eijax.simulator.embedded import EmbeddedSimulator, appraise, credit, engine, reading, sheet, speech, stop, words

MODULES = (appraise, credit, engine, reading, sheet, speech, stop, words, prompts)


def _caches():
  return [value for module in MODULES for value in vars(module).values() if isinstance(value, functools._lru_cache_wrapper)]


def _forget():
  for cache in _caches():
    if cache not in (words._loaded_word_list, prompts._compiled_template):
      cache.cache_clear()


def _requests():
  """The same lines to sheets that differ in scene, appraisal or persona."""
  lines = [cards.GOOD[scene] for scene in cards.CARDS] + ['I see that.', "I'm so sorry to hear that, it must be hard.", '']
  requests = []
  for scene, card in cards.CARDS.items():
    for line in lines:
      episode = cards.talk(card, [lines[0], line])
      requests.append(prompts.request_of(episode, cards.reply(line)))
  others = list(cards.CARDS.values())
  return requests + [
      dataclasses.replace(request, appraisal=other.appraisal, persona=other.aggressor_prompt)
      for request in requests[:8] for other in others
  ]


def test_caches_change_no_answer_whatever_came_before():
  simulator, requests = EmbeddedSimulator(1), _requests()
  fresh = []
  for request in requests:
    _forget()
    fresh.append(simulator.react(request, 5))
  assert len({str(answer) for answer in fresh}) > 20
  order = list(range(len(requests))) * 2
  random.Random(0).shuffle(order)
  _forget()
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)  # Threads change within a request.
  try:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      answers = list(pool.map(lambda index: simulator.react(requests[index], 5), order))
  finally:
    sys.setswitchinterval(interval)
  assert all(answer == fresh[index] for index, answer in zip(order, answers))


def test_every_cache_of_texts_has_a_bound():
  # The others hold one entry for each template, and the word list.
  unbounded = [cache.__name__ for cache in _caches() if cache.cache_info().maxsize is None]
  assert unbounded == ['_loaded_word_list', '_compiled_template'] and len(_caches()) >= 8
  of_sheets = [prompts._parse_static, prompts._sections, sheet.compile_sheet, speech.quotable, speech._addressed]
  assert all(cache.cache_info().maxsize == prompts.TALKS_KEPT for cache in of_sheets)


def _alive(kind):
  gc.collect()
  return sum(isinstance(value, kind) for value in gc.get_objects())


@pytest.mark.slow
def test_talks_that_are_over_are_forgotten():
  # Long talks with people who all differ, more than twice as many as are kept.
  _forget()
  kept, simulator = prompts.TALKS_KEPT, EmbeddedSimulator(0)
  lines = [f'I see what number {number} means to you.' for number in range(8)]
  talk = prompts.request_of(cards.talk(cards.SUPPORT, lines[:-1]), cards.reply(lines[-1]))
  rounds = 1 + sum(said.speaker == 'they' for said in talk.history)
  counts, answers = [], []
  for number in range(2 * kept + 88):
    messages = prompts.render_request(dataclasses.replace(talk, persona=f'You are person {number}.'))
    answers.append(simulator.answer(messages, 0))
    if number in (kept + 50, 2 * kept + 87):
      counts.append((_alive(sheet.Sheet), _alive(reading.Reading)))
  # A reading holds its sheet.
  assert rounds >= 6 and all(
      kept <= sheets <= 8 * kept // rounds + 2 and readings == 8 * kept for sheets, readings in counts), counts
  again = prompts.render_request(dataclasses.replace(talk, persona='You are person 0.'))
  assert simulator.answer(again, 0) == answers[0]


def test_the_first_requests_together_compile_a_template_once(monkeypatch):
  compiled = []
  get_template = prompts.jinja2.Environment.get_template

  def counted(environment, name, *args, **settings):
    compiled.append(name)
    time.sleep(0.05)  # Time enough for the others to come.
    return get_template(environment, name, *args, **settings)

  monkeypatch.setattr(prompts.jinja2.Environment, 'get_template', counted)
  prompts._compiled_template.cache_clear()
  prompts._sections.cache_clear()
  episode = protocol.start(cards.SUPPORT, max_rounds=8, seed=0)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    texts = list(pool.map(lambda _: str(prompts.render(episode, cards.reply('I see.'))), range(16)))
  assert len(set(texts)) == 1 and sorted(compiled) == ['sections.j2', 'system_en.j2', 'user_en.j2']


def test_lines_of_a_talk_end_at_the_first_tag_that_closes_them():
  # The same as the obvious pattern, which takes a step for every character.
  plain = re.compile(r'<(you|they|private) round="(\d+)">(.*?)</\1>', re.S)
  rng = random.Random(3)
  pieces = ['<you round="1">', '</you>', '<they round="2">', '</they>', '<private round="0">', '</private>', '<', '>', '/', 'a\n', 'b c', '</', '<you']
  num_found = 0
  for _ in range(3000):
    text = ''.join(rng.choices(pieces, k=rng.randint(0, 14)))
    assert prompts._LINE.findall(text) == plain.findall(text)
    num_found += bool(plain.search(text))
    match = re.search(r'<you round="1">(.*?)</you>', text, re.S)
    assert prompts._between(text, '<you round="1">', '</you>') == (match and match.group(1))
  assert num_found > 300


def test_stems_and_cues_are_found_as_one_by_one():
  for card in cards.CARDS.values():
    compiled = sheet.compile_sheet('en', card.scene, card.aggressor_prompt, card.appraisal)
    lines = words.sentences(words.normalise(card.aggressor_prompt)) + [
        words.normalise(cue) for item in compiled.items for cue in item.raw_cues]
    for line in lines:
      stems = frozenset(words.stems(line))
      assert words.content_stems(line) == {stem for stem in stems if stem not in words.COMMON_STEMS and len(stem) > 1}
      for item in compiled.items:
        assert item.match(stems, line) == next((cue for cue in item.cues if cue and cue <= stems), None)
