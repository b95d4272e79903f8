"""Stems under many threads, as the server uses them."""

import concurrent.futures
import itertools
import sys

import snowballstemmer

from eijax.simulator.embedded import words


def test_stems_of_many_threads_equal_those_of_one():
  parts = ('nation', 'relat', 'operat', 'care', 'hope', 'general', 'organ', 'sens', 'form', 'active')
  endings = ('ing', 'ings', 'ed', 'ful', 'fully', 'ness', 'ization', 'ational', 'iveness', 'ly')
  fresh = [a + b + c for a, b, c in itertools.product(parts, parts, endings)]
  single = snowballstemmer.stemmer('english')
  interval = sys.getswitchinterval()
  sys.setswitchinterval(1e-6)  # Threads change within a stem: without a lock this fails at once.
  words.stem.cache_clear()
  try:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      found = list(pool.map(words.stem, fresh, chunksize=1))
  finally:
    sys.setswitchinterval(interval)
  assert found == [single.stemWord(word) for word in fresh]
