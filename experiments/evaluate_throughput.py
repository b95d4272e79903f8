"""How close an evaluation comes to the time that its endpoints alone would take.

  python experiments/evaluate_throughput.py --concurrency=64 --simulator_latency_secs=0.2

Serves the embedded simulator and a scripted model over HTTP, each in a process of its own,
runs the command's own code over the test scenarios, and prints:

- the ideal: no schedule of independent talks, `concurrency` at a time, ends before the longest
  talk does, nor before the sum of all talks / concurrency. Three times: from the delays that the
  servers add; from what the servers say that each answer took them (delay and their own work,
  from the whole request to the first byte of the answer); from the response times that the client saw.
- the greedy schedule of the same talks, the next one as soon as one ends: what a client that
  costs nothing would reach. It lies above the ideal, because talks do not fill the places evenly.
- CPU time of each process, in all and for each request that it sent or answered, and the resident
  memory of each over time.
- how busy the machine was with other things: the load average before and after. With more than one in the
  queue besides these three processes the ratios say nothing.

All three processes are Python, and on two cores their CPU time sets the pace of a model that answers at once: about 1.3 ms a request
of the client, 2.6 ms of the embedded simulator, whose work is part of its latency, and 1.1 ms of the scripted model. The ideal of what
the servers say holds the wait for their own work, so that a faster simulator makes for a shorter ideal as well: compare
`elapsed_secs` and CPU time between versions, and ratios within one.
Seen on two cores with little else running: 6.7 to 7.5 s, as fast as the machine was at the time; 1.25 to 1.4 x the ideal of the delays alone
(1.02 to 1.15 x their greedy schedule, which has a talk for each request in flight; an evaluation has two), 1.13 to 1.19 x that of what
the servers say; memory that levels off, that of the simulator after 256 scenarios.
"""

import contextlib
import heapq
import json
import os
import pathlib
import sys
import tempfile
import threading
import time

from absl import app, flags
import numpy as np

from eijax import collector
from eijax.chat import wire as wire_lib
from eijax.chat.wire import Wire
from eijax.errors import EijaxError
from eijax.evaluate.config import EvaluateConfig, ModelConfig
from eijax.evaluate.run import Options, run
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SPLITS
from eijax.scenarios.selection import select
from eijax.scenarios.shipped import shipped_folder
from eijax.simulator.config import SimulatorConfig
from eijax.simulator.faults import Faults
from eijax.simulator.process import SimulatorProcess
from eijax.simulator.server import PROCESSING_MS

_CONCURRENCY = flags.DEFINE_integer('concurrency', 64, 'Requests in flight to each side.', lower_bound=1)
_SIMULATOR_LATENCY = flags.DEFINE_float('simulator_latency_secs', 0.2, 'Mean time of a simulator answer, log-normal.')
_MODEL_LATENCY = flags.DEFINE_float('model_latency_secs', 0.0, 'Mean time of a model reply, log-normal.')
_SIMULATORS = flags.DEFINE_integer('simulators', 1, 'Processes that serve the simulator.', lower_bound=1)
_LIMIT = flags.DEFINE_integer('limit', 0, 'Scenarios; 0 for all.')
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Scenarios to play; train has ten times as many.')
_DEFENDER = flags.DEFINE_string('defender', 'decent', 'Scripted model.')
_OUT = flags.DEFINE_string('out', None, 'JSON file for the figures.')
_TICKS = os.sysconf('SC_CLK_TCK')


class Exchanges:
  """Every request of both sides, with the response time that the client saw.

  Bodies wait on disk: in memory they would hide whether that of the evaluation is flat.
  """

  def __init__(self):
    # Offset and length of the body; start, response time and time that the server says, in seconds.
    self.seen: list[tuple[int, int, float, float, float]] = []
    self._bodies, self._lock = tempfile.TemporaryFile(), threading.Lock()  # pylint: disable=consider-using-with
    wire_lib._KEPT_HEADERS += (PROCESSING_MS,)  # pylint: disable=protected-access
    send = Wire.send

    def recorded(wire, route, method, path, body=b''):
      start = time.monotonic()
      exchange = send(wire, route, method, path, body)
      if body:
        with self._lock:
          said_secs = float(exchange.headers[PROCESSING_MS]) / 1e3
          self.seen.append((self._bodies.tell(), len(body), start, exchange.latency_secs, said_secs))
          self._bodies.write(body)
      return exchange

    Wire.send = recorded

  def talks(self, scenarios, faults: dict[str, Faults]) -> dict[str, np.ndarray]:
    """Scenario id -> [delay, time that the server says, response time] in seconds, summed over the talk."""
    marks = {(scenario.defender_prompt[:120], scenario.opening_line): scenario.id for scenario in scenarios}
    personas = {scenario.aggressor_prompt[:120].replace('&', '&amp;').replace('<', '&lt;'): scenario.id for scenario in scenarios}
    talks: dict[str, np.ndarray] = {}
    for offset, size, _, response_secs, said_secs in self.seen:
      self._bodies.seek(offset)
      body = self._bodies.read(size)
      request = json.loads(body)
      system = request['messages'][0]['content']
      side = 'simulator' if request['model'] == 'eijax-embedded' else 'model'
      if side == 'simulator':
        found = next(name for text, name in personas.items() if text in system)
      else:
        found = next(name for (text, _), name in marks.items() if system.startswith(text))
      drawn = faults[side].draw(body)
      talks[found] = talks.get(found, 0) + np.array([drawn.delay_secs, said_secs, response_secs])
    return talks


def greedy(talks, concurrency: int) -> float:
  """Seconds of list scheduling: talks in their order, each on the first free place."""
  free = [0.0] * concurrency
  for secs in talks:
    heapq.heappush(free, heapq.heappop(free) + secs)
  return max(free)


def cpu_secs(pid: int) -> float:
  """User and system time of a process so far."""
  fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
  return (int(fields[11]) + int(fields[12])) / _TICKS


class Memory:
  """Samples the resident memory of processes until closed. processes: name -> id."""

  def __init__(self, processes: dict[str, int], every_secs: float = 0.25):
    self.mib: dict[str, list[float]] = {name: [] for name in processes}
    self._processes = processes
    self._stop = threading.Event()
    self._every = every_secs
    threading.Thread(target=self._watch, daemon=True).start()

  def _watch(self) -> None:
    page = os.sysconf('SC_PAGE_SIZE')
    while not self._stop.wait(self._every):
      for name, pid in self._processes.items():
        self.mib[name].append(int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1]) * page / 2**20)

  def figures(self) -> dict[str, dict[str, object]]:
    """For each process: medians of the first and the last third of the time, of its tenths, and the largest."""
    figures = {}
    for name, mib in self.mib.items():
      third = max(1, len(mib) // 3)
      figures[name] = {
          'first third': float(np.median(mib[:third])), 'last third': float(np.median(mib[-third:])), 'largest': max(mib),
          'tenths': [round(float(np.median(part)), 1) for part in np.array_split(mib, 10) if len(part)]}
    return figures

  def close(self) -> None:
    self._stop.set()


def measure(out: str) -> dict:
  """Run once and return the figures."""
  with contextlib.ExitStack() as stack:
    simulators = [SimulatorProcess(latency_secs=_SIMULATOR_LATENCY.value) for _ in range(_SIMULATORS.value)]
    model = SimulatorProcess(
        latency_secs=_MODEL_LATENCY.value, module='eijax.scripted', arguments=(f'--defender={_DEFENDER.value}',))
    for process in (*simulators, model):
      stack.callback(process.stop)
    config = EvaluateConfig(
        model=ModelConfig(name=f'scripted-{_DEFENDER.value}', urls=(model.url,)),
        simulator=SimulatorConfig(urls=tuple(process.url for process in simulators), max_attempts=3),
        scenarios=str(shipped_folder()), limit=_LIMIT.value, split=_SPLIT.value, concurrency=_CONCURRENCY.value)
    exchanges = Exchanges()
    memory = Memory({'evaluate': os.getpid(), 'simulator': simulators[0].pid, 'model': model.pid})
    stack.callback(memory.close)
    load_before = os.getloadavg()[0]
    before = [cpu_secs(os.getpid()), sum(cpu_secs(p.pid) for p in simulators), cpu_secs(model.pid)]
    collector.relieve()  # As the command does.
    summary = run(config, Options(out=out))
    after = [cpu_secs(os.getpid()), sum(cpu_secs(p.pid) for p in simulators), cpu_secs(model.pid)]
  scenarios = select(load_split(config.scenarios, config.split), limit=config.limit)
  talks = exchanges.talks(scenarios, {
      'simulator': Faults(seed=0, latency_secs=_SIMULATOR_LATENCY.value, fault_rate=0.0),
      'model': Faults(seed=0, latency_secs=_MODEL_LATENCY.value, fault_rate=0.0)})
  # From the first request to the last answer: loading and starting are no part of a schedule.
  elapsed = max(start + secs for _, _, start, secs, _ in exchanges.seen) - min(start for _, _, start, _, _ in exchanges.seen)
  secs = np.array([talks[scenario.id] for scenario in scenarios])  # [talks, (delay, server, response)]
  ideal = np.maximum(secs.max(axis=0), secs.sum(axis=0) / _CONCURRENCY.value)
  cpu = dict(zip(('evaluate', 'simulator', 'model'), np.subtract(after, before).tolist()))
  return {
      'talks': summary['n'], 'failed': summary['failed'], 'requests': len(exchanges.seen),
      'concurrency': _CONCURRENCY.value, 'elapsed_secs': elapsed,
      **{f'{name}_{of}': value for number, of in enumerate(('delays', 'servers', 'responses')) for name, value in (
          ('ideal_secs', ideal[number]), ('greedy_secs', greedy(secs[:, number], _CONCURRENCY.value)),
          ('elapsed_over_ideal', elapsed / ideal[number]),
          ('elapsed_over_greedy', elapsed / greedy(secs[:, number], _CONCURRENCY.value)))},
      'longest_talk_secs': secs[:, 0].max(), 'requests_per_sec': len(exchanges.seen) / elapsed,
      'cpu_secs': cpu,
      # Every round asks either side once.
      'cpu_ms_a_request': {name: 1e3 * secs / (len(exchanges.seen) / (1 if name == 'evaluate' else 2)) for name, secs in cpu.items()},
      'memory_mib': memory.figures(),
      'load_average': {'before': load_before, 'after': os.getloadavg()[0]},
  }


def main(argv: list[str]) -> None:
  del argv
  try:
    with tempfile.TemporaryDirectory() as folder:
      figures = measure(folder)
  except EijaxError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(error.exit_code)
  text = json.dumps(figures, indent=2)
  print(text)
  if _OUT.value:
    pathlib.Path(_OUT.value).write_text(text + '\n', encoding='utf-8')


if __name__ == '__main__':
  app.run(main)
