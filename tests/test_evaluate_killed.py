"""kill -9 at random moments: nothing that was finished is lost or held again, and the end is that of a run without kills."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from eijax.evaluate.run import Options, run
from eijax.evaluation.store import read_rows
from eijax.simulator.server import SimulatorServer
import killed_evaluation
from tiny_run import write_scenarios

NUM_KILLS = 20


class Counting(SimulatorServer):
  """Notes when it was asked for which scenario."""

  def __init__(self, **settings):
    super().__init__(**settings)
    self.asked, answer = [], self.simulator.answer

    def counted(messages, seed):
      self.asked.append((time.monotonic(), messages[0]['content'], seed))
      return answer(messages, seed)

    self.simulator.answer = counted


@contextlib.contextmanager
def serving(**settings):
  server = Counting(**settings)
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize('seed', [0])
def test_twenty_kills_lose_and_repeat_nothing(tmp_path, seed):
  scenarios = write_scenarios(tmp_path / 'scenarios')
  with serving(latency_secs=0.004) as server:
    whole = run(killed_evaluation.config_of(scenarios, server.url), Options(out=str(tmp_path / 'whole')))
    asked_whole = sorted((content, asked_seed) for _, content, asked_seed in server.asked)
    server.asked.clear()
    root = pathlib.Path(__file__).resolve().parents[1]
    program = subprocess.run(
        [sys.executable, str(root / 'tests' / 'killed_evaluation.py'), scenarios, server.url, str(tmp_path / 'killed'),
         str(NUM_KILLS), str(seed)],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(root), str(root / 'tests')])), capture_output=True, text=True,
        check=False, timeout=120)
    asked = list(server.asked)
  assert program.returncode == 0, program.stderr
  kills = [json.loads(line) for line in program.stdout.splitlines()]
  assert len(kills) == NUM_KILLS
  assert (tmp_path / 'killed' / 'results.jsonl').read_bytes() == (tmp_path / 'whole' / 'results.jsonl').read_bytes()
  last = read_rows(tmp_path / 'killed')
  assert len(last) == whole['n'] == 4 * killed_evaluation.SAMPLES
  seen_some = 0
  for kill, later in zip(kills, kills[1:]):
    kept = [line for line in kill['rows'].splitlines(keepends=True) if line.endswith('\n')]
    assert later['rows'].startswith(''.join(kept))  # Nothing lost, nothing changed.
    seen_some += bool(kept)
  assert seen_some > NUM_KILLS // 3  # The kills met the talks, and not the start alone.
  # Of a talk that was on disk at a kill, no request came after it.
  everything = {(content, asked_seed) for content, asked_seed in asked_whole}
  assert {(content, asked_seed) for _, content, asked_seed in asked} == everything
  for kill in kills:
    done = [json.loads(line) for line in kill['rows'].splitlines() if line.endswith('}')]
    asked_later = {(content, asked_seed) for when, content, asked_seed in asked if when > kill['time']}
    for row in done:
      assert not asked_later & requests_of(row, everything)


def requests_of(row, everything):
  """The requests of one talk: they name its levels at the time, and no other talk's seeds."""
  from eijax.seeds import derive_seed  # pylint: disable=import-outside-toplevel

  talk = derive_seed('evaluation', 0, row['id'], row['sample'])
  seeds = {derive_seed('simulator', talk, turn + 1, 0) for turn in range(row['num_rounds'])}
  found = {request for request in everything if request[1] in seeds}
  assert len(found) == row['num_rounds']
  return found
