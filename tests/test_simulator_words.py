"""Stems under many threads, as the server uses them."""

import concurrent.futures
import itertools
import sys
import time

import Stemmer

from eijax.simulator.embedded import words


def test_stems_of_many_threads_equal_those_of_one():
  parts = ('nation', 'relat', 'operat', 'care', 'hope', 'general', 'organ', 'sens', 'form', 'active')
  endings = ('ing', 'ings', 'ed', 'ful', 'fully', 'ness', 'ization', 'ational', 'iveness', 'ly')
  fresh = [a + b + c for a, b, c in itertools.product(parts, parts, endings)]
  single = Stemmer.Stemmer('english')
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)  # Threads change between any two instructions.
  words.stem.cache_clear()
  try:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      found = list(pool.map(words.stem, fresh, chunksize=1))
  finally:
    sys.setswitchinterval(interval)
  assert found == [single.stemWord(word) for word in fresh]


def test_many_first_requests_load_the_word_list_once(monkeypatch):
  load, loads = words.spellchecker.SpellChecker, []

  def counted(**settings):
    loads.append(settings)
    time.sleep(0.05)  # Time enough for the others to come.
    return load(**settings)

  monkeypatch.setattr(words.spellchecker, 'SpellChecker', counted)
  words._loaded_word_list.cache_clear()
  words.is_english.cache_clear()
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert all(pool.map(words.is_english, ['glass'] * 8))
  assert len(loads) == 1
