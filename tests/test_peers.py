"""Several processes, one run: what they agree on, what becomes of it when one ends, and that the result is that of one process."""

import concurrent.futures
import signal
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from eijax import train
from eijax.errors import EijaxError, PreemptedError, UsageError
from eijax.learning import packing, sharding
from eijax.training import devices, experience, together
from eijax.training.machine import MachineConfig
from eijax.training.peers import Peers
from eijax.training.preemption import Notice, Preemption
from forked import environment, free_port
from learning_cases import segments
from peer_run import peer_config
from tiny_run import tiny_config

# jax's own client of a CPU gives up after 30 seconds in a collective; a machine that is busy may take that long to start one.
TIMEOUT_SECS = 300


class Store:
  """The key-value store of jax.distributed, for threads."""

  def __init__(self):
    self.values, self._lock = {}, threading.Condition()

  def key_value_set_bytes(self, key, value, allow_overwrite=False):
    with self._lock:
      assert allow_overwrite or key not in self.values, key
      self.values[key] = value
      self._lock.notify_all()

  def key_value_dir_get_bytes(self, prefix):
    with self._lock:
      return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]

  def blocking_key_value_get_bytes(self, key, milliseconds):
    with self._lock:
      assert self._lock.wait_for(lambda: key in self.values, milliseconds / 1000)
      return self.values[key]

  def key_value_delete(self, prefix):
    with self._lock:
      for key in [key for key in self.values if key.startswith(prefix)]:
        del self.values[key]


def in_threads(count, work):
  """work(peers) of each of `count` processes that share a store."""
  store = Store()
  peers = [Peers(store, i, count) for i in range(count)]
  try:
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
      return list(pool.map(work, peers)), store
  finally:
    for one in peers:
      one._stopped.set()  # pylint: disable=protected-access


def test_everyone_hears_everyone_in_order():
  def work(peers):
    large = 'x' * (5 * 2**19)  # More than two of the store's chunks.
    return [peers.exchange([peers.index, None, 0.1]), peers.gather({'rows': [large]}), peers.exchange('end')]

  results, store = in_threads(3, work)
  for i, (first, rows, last) in enumerate(results):
    assert first == [[0, None, 0.1], [1, None, 0.1], [2, None, 0.1]] and last == ['end'] * 3
    assert rows == ([{'rows': ['x' * (5 * 2**19)]}] * 3 if i == 0 else [])
  # What all have read is gone: a run of days does not fill the store.
  assert {key.split('/')[2] for key in store.values if key.startswith(('eijax/data', 'eijax/posted'))} == {'2'}
  assert Peers().exchange(3) == [3] == Peers().gather(3)


def test_all_enter_a_block_or_none():
  def work(peers):
    preemption = Preemption(30.0)
    with peers.together(preemption):
      entered = [1]
    preemption.noticed = peers.index == 1
    try:
      with peers.together(preemption):
        entered.append(2)
    except Notice:
      peers.agree_to_leave(preemption)  # Nobody waits: all know.
      return entered, 'notice', preemption.agreed
    return entered, 'none', preemption.agreed

  results, _ = in_threads(3, work)
  assert results == [([1], 'notice', True)] * 3


def test_one_that_is_interrupted_in_its_talks_is_heard_by_those_who_wait():
  def work(peers):
    preemption = Preemption(30.0)
    if peers.index == 0:
      preemption.noticed = True
      peers.agree_to_leave(preemption)
      return 'left'
    try:
      with peers.together(preemption):
        return 'updated'
    except Notice:
      return 'left'

  assert in_threads(3, work)[0] == ['left'] * 3


@pytest.mark.parametrize('amounts', ((24, 3), (40, 40), (5, 0), (0, 1)))
def test_batches_agree_in_number_and_shape(amounts):
  config = packing.PackingConfig(row_lengths=(16, 32), rows_per_minibatch=2, num_minibatches=2)
  own = [segments(seed, num) if num else [] for seed, num in enumerate(amounts)]
  results, _ = in_threads(2, lambda peers: together.pack(own[peers.index], config, 7, peers))
  assert len({(len(batches), batches[0].tokens.shape) for batches in results}) == 1
  for given, batches in zip(own, results):
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == sum(int(one.loss_mask.sum()) for one in given)


def test_one_process_packs_as_ever():
  config = packing.PackingConfig(row_lengths=(32,), rows_per_minibatch=4, num_minibatches=3)
  expected = packing.pack_minibatches(segments(), config, seed=3)
  for actual, batch in zip(together.pack(segments(), config, 3, Peers()), expected, strict=True):
    jax.tree.map(np.testing.assert_array_equal, actual, batch)


def test_parts_together_are_the_whole():
  for total in (4, 7, 213):
    parts = [together.share(range(total), Peers(None, i, 4)) for i in range(4)]
    assert [x for part in parts for x in part] == list(range(total)) and max(map(len, parts)) - min(map(len, parts)) <= 1


def test_metrics_of_several_processes():
  def part(reward, count, failed, **first):
    means = {name: [reward * count, count] for name in ('reward', 'reward/charm')}
    return {'means': {**means, 'advantage': [count, count], 'squared_advantage': [4 * count, count]}, 'episodes': count + failed,
            'failed_episodes': failed, 'first_failure': None, **first}

  assert experience.metrics([part(0.5, 3, 1), part(-0.5, 1, 0)]) == {
      'reward': 0.25, 'reward/charm': 0.25, 'advantage_std': 3**0.5, 'episodes': 5, 'failed_episodes': 1}
  with pytest.raises(EijaxError, match='all 3 talks of this step failed, the first with simulator_failed: down; mend the cause'):
    experience.metrics([part(0.0, 0, 0), part(0.0, 0, 3, first_failure='simulator_failed: down')])
  stats = {'requests': 3, 'retries': 1, 'latency_secs_mean': 1.0, 'latency_secs_p95': 2.0}
  assert together.simulator_stats([stats, {**stats, 'requests': 1, 'latency_secs_mean': 3.0, 'latency_secs_p95': 5.0}]) == {
      'requests': 4, 'retries': 2, 'latency_secs_mean': 1.5, 'latency_secs_p95': 5.0}


@pytest.mark.parametrize('values, message', [
    (dict(coordinator='a:1'), 'give all three, or none'),
    (dict(coordinator='a', num_processes=2, process_id=0), "coordinator='a' must be HOST:PORT"),
    (dict(coordinator='a:1', num_processes=2, process_id=2), 'process_id=2 must lie in 0..1'),
    (dict(peer_timeout_secs=0.0), 'peer_timeout_secs=0 must be at least 1')])
def test_nonsense_is_refused(values, message):
  with pytest.raises(UsageError, match=message):
    MachineConfig(**values)


def test_more_processes_than_scenarios(monkeypatch):
  config = peer_config('', tiny_config('nowhere'))
  monkeypatch.setattr(jax, 'process_count', lambda: 8)
  monkeypatch.setattr(devices.hosts, 'check_processes', lambda mesh: None)
  monkeypatch.setattr(devices.hosts, 'local_mesh', lambda mesh: mesh)
  mesh = sharding.make_mesh('')
  with pytest.raises(UsageError, match=r'scenarios_per_step=4 must be at least the number of processes \(8\)'):
    devices.check_fits(config, mesh)


# ---- Processes -----------------------------------------------------------------------------------------------


def run_all(commands):
  """Run processes at once; (status, stdout, stderr) of each."""
  running = [subprocess.Popen(command, env=environment(num_devices=4), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
             for command in commands]
  try:
    with concurrent.futures.ThreadPoolExecutor(len(running)) as pool:
      outputs = list(pool.map(lambda process: process.communicate(timeout=TIMEOUT_SECS), running))
  finally:
    for process in running:
      process.kill()
  return [(process.returncode, *output) for process, output in zip(running, outputs)]


TALK = '''
import os, signal, sys, time
from eijax import command
from eijax.errors import DataError
from eijax.training.machine import MachineConfig
from eijax.training.peers import joined

def main(argv):
  count, index, moment = int(argv[1]), int(argv[2]), argv[4]
  machine = MachineConfig(coordinator=argv[3], num_processes=count, process_id=index, peer_timeout_secs=2.0, join_timeout_secs=float(argv[5]))
  with joined(machine, tpu=False) as peers:
    print(peers.exchange(index), flush=True)
    if moment == 'kill':
      os.kill(os.getpid(), signal.SIGKILL)
    if moment == 'error':
      raise DataError('a file is broken; mend it')
    peers.exchange('again')

arguments, sys.argv = sys.argv, sys.argv[:1]
command.run(lambda argv: main(arguments))
'''


def talk(tmp_path, *moments, join_timeout_secs=60):
  script = tmp_path / 'talk.py'
  script.write_text(TALK)
  address = f'127.0.0.1:{free_port()}'
  return run_all([[sys.executable, str(script), str(len(moments)), str(i), address, moment, str(join_timeout_secs)]
                  for i, moment in enumerate(moments)])


def test_processes_that_end_well(tmp_path):
  for status, out, err in talk(tmp_path, 'none', 'none', 'none'):
    assert status == 0 and out.startswith('[0, 1, 2]') and 'rror' not in err, err


def test_an_error_of_one_process_ends_all_with_its_message(tmp_path):
  first, broken = talk(tmp_path, 'none', 'error')
  assert broken[0] == first[0] == 1 and 'error: a file is broken; mend it' in broken[2]
  assert 'error: process 1 of 2 has ended: a file is broken; mend it' in first[2] and 'Traceback' not in first[2] + broken[2]


def test_a_host_that_dies_ends_all_with_a_message(tmp_path):
  first, dead = talk(tmp_path, 'none', 'kill')
  assert dead[0] == -signal.SIGKILL and first[0] == PreemptedError.exit_code
  assert ('error: process 1 of 2 has not been heard of for 2 s: its host is gone; start all processes again to go on from the last '
          'checkpoint') in first[2]


def test_the_first_host_that_dies_too(tmp_path):
  dead, other = talk(tmp_path, 'kill', 'none')
  assert dead[0] == -signal.SIGKILL and other[0] == PreemptedError.exit_code, other
  assert 'process 0 is gone' in other[2] and 'start all processes again' in other[2]


@pytest.mark.parametrize('index', (0, 1))
def test_a_process_that_nobody_joins_ends_by_itself(tmp_path, index):
  script = tmp_path / 'talk.py'
  script.write_text(TALK)
  [(status, _, err)] = run_all([[sys.executable, str(script), '2', str(index), f'127.0.0.1:{free_port()}', 'none', '2']])
  assert status == 2 and 'was not reached by all processes within 2 s; start them all, and give all the address of process 0' in err, err
