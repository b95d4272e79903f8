"""Rows are written beside the talks: nobody waits for the disk, and nothing is called written that is not."""

import concurrent.futures
import os
import threading

import pytest

from eijax.episodes import protocol
from eijax.errors import EijaxError
from eijax.evaluation import writer as writer_lib
from eijax.evaluation.run import evaluate
from eijax.evaluation.store import ResultStore, read_rows
from eijax.evaluation.writer import RowWriter
from eijax.rollouts.ports import EpisodeJob, PolicyReply, Rollout
from talks import make_answer, make_episode, make_scenario

SECS = 10  # For what happens at once unless the test fails.


def make_rollout(name):
  episode = protocol.fail(make_episode(('Hi.', -4, 4), id=name), 'simulator_failed', 'down')
  return Rollout(job=EpisodeJob(scenario=episode.scenario, seed=0, key=f'{name}#0'), episode=episode, samples=())


def row_of(rollout):
  return {'id': rollout.job.scenario.id, 'scene_tag': 'support', 'score': None}


class SlowDisk:
  """Holds every sync until it is let go."""

  def __init__(self, monkeypatch):
    self.reached, self.go, self.num = threading.Semaphore(0), threading.Semaphore(0), 0
    sync = os.fsync

    def fsync(number):
      self.num += 1
      self.reached.release()
      assert self.go.acquire(timeout=SECS)
      sync(number)

    monkeypatch.setattr(os, 'fsync', fsync)


def test_rows_that_come_meanwhile_share_a_sync_and_are_written_in_order(tmp_path, monkeypatch):
  written = []
  with ResultStore(tmp_path) as store:
    disk = SlowDisk(monkeypatch)
    with RowWriter(store, row_of, lambda rollout: written.append(rollout.job.scenario.id), waits=False) as writer:
      writer.put(make_rollout('a'))
      assert disk.reached.acquire(timeout=SECS)
      for name in 'bcd':
        writer.put(make_rollout(name))
      assert not written  # Not before the sync has returned.
      disk.go.release(2)
  assert written == list('abcd') == [row['id'] for row in read_rows(tmp_path)] == [row['id'] for row in store.rows]
  assert disk.num == 2


def test_who_waits_goes_on_with_the_row_on_disk(tmp_path):
  written = []
  with ResultStore(tmp_path) as store, RowWriter(store, row_of, written.append, waits=True) as writer:
    for number, name in enumerate('abc', 1):
      writer.put(make_rollout(name))
      assert len(written) == len(read_rows(tmp_path)) == number


def test_talks_that_wait_for_the_disk_have_a_bound(tmp_path, monkeypatch):
  monkeypatch.setattr(writer_lib, 'MOST_WAITING', 2)
  with ResultStore(tmp_path) as store:
    disk = SlowDisk(monkeypatch)
    with RowWriter(store, row_of, None, waits=False) as writer, concurrent.futures.ThreadPoolExecutor() as pool:
      writer.put(make_rollout('a'))
      assert disk.reached.acquire(timeout=SECS)
      puts = [pool.submit(writer.put, make_rollout(name)) for name in 'bcd']
      concurrent.futures.wait(puts, timeout=0.3)
      assert sum(put.done() for put in puts) == 2
      disk.go.release(4)
  assert sorted(row['id'] for row in read_rows(tmp_path)) == list('abcd')


@pytest.mark.parametrize('waits', [False, True])
def test_a_full_disk_ends_the_talks_and_keeps_the_rows_before(tmp_path, monkeypatch, waits):
  written = []

  def full(number):
    raise OSError(28, 'No space left on device')

  with ResultStore(tmp_path) as store:
    with pytest.raises(EijaxError, match='No space left'):
      with RowWriter(store, row_of, lambda rollout: written.append(rollout.job.key), waits=waits) as writer:
        writer.put(make_rollout('a'))
        while len(written) < 1:
          pass
        monkeypatch.setattr(os, 'fsync', full)
        writer.put(make_rollout('b'))
        assert not waits
  assert written == ['a#0'] and [row['id'] for row in read_rows(tmp_path)] == ['a']


def test_nothing_is_written_after_a_row_that_was_not(tmp_path):
  def fails_once(rollout):
    if rollout.job.scenario.id == 'b':
      raise RuntimeError('b')

  with ResultStore(tmp_path) as store, pytest.raises(RuntimeError, match='b'):
    with RowWriter(store, row_of, fails_once, waits=False) as writer:
      for name in 'abc':
        writer.put(make_rollout(name))
        writer._queue.join()
  assert [row['id'] for row in read_rows(tmp_path)] == ['a', 'b']


def test_what_ends_the_talks_early_is_not_hidden_and_waits_for_the_rows(tmp_path):
  with ResultStore(tmp_path) as store, pytest.raises(KeyboardInterrupt):
    with RowWriter(store, row_of, None, waits=False) as writer:
      for name in 'abc':
        writer.put(make_rollout(name))
      raise KeyboardInterrupt
  assert len(read_rows(tmp_path)) == 3


class Policy:

  def submit(self, requests):
    futures = [concurrent.futures.Future() for _ in requests]
    for future in futures:
      future.set_result(PolicyReply(text='Hello.'))
    return futures


def test_a_slow_disk_keeps_no_talk_waiting(tmp_path, monkeypatch):
  # One talk has ended and waits for the disk; the disk waits until the other has come to its end as well.
  disk = SlowDisk(monkeypatch)

  class Simulator:

    def submit(self, episode, reply):
      future = concurrent.futures.Future()
      if episode.scenario.id == 'long' and len(episode.turns) == 1:
        assert disk.reached.acquire(timeout=SECS)  # The short talk's row is being written.
      if episode.scenario.id == 'long' and len(episode.turns) == 5:
        disk.go.release(100)
      future.set_result(make_answer(-1, 1, stop=episode.scenario.id == 'short'))
      return future

  scenarios = [make_scenario('support', id='short'), make_scenario('support', id='long')]
  summary = evaluate(
      scenarios, Policy(), Simulator(), tmp_path, model_name='m', simulator_name='s', max_rounds=6, thinking=False, seed=1,
      lockstep=False)
  assert summary['n'] == 2 and summary['failed'] == 0
