"""An evaluation that is killed again and again. A program, because it forks: a test process has threads.

    python tests/killed_evaluation.py SCENARIOS SIMULATOR_URL OUT NUM_KILLS SEED

Prints one JSON object per kill: when it happened, and the results as they stood right after it.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time

from eijax.evaluate.config import EvaluateConfig, ModelConfig
from eijax.evaluate.run import Options, run
from eijax.simulator.config import SimulatorConfig

SAMPLES = 10


def config_of(scenarios: str, url: str) -> EvaluateConfig:
  return EvaluateConfig(
      model=ModelConfig(name='scripted:decent'), simulator=SimulatorConfig(urls=(url,), max_attempts=3), scenarios=scenarios,
      split='test', samples=SAMPLES, max_rounds=3, concurrency=4)


def _num_rows(results: pathlib.Path) -> int:
  return results.read_bytes().count(b'\n') if results.exists() else 0


def _wait(results: pathlib.Path, rng: random.Random) -> None:
  """Until a random moment: soon after the start, or just after one more talk has ended, whatever the machine's speed."""
  if rng.random() < 0.6:
    least, end = _num_rows(results) + 1, time.monotonic() + 30
    while _num_rows(results) < least and time.monotonic() < end:
      time.sleep(0.001)
  time.sleep(rng.uniform(0.0, 0.02))


def main(argv: list[str]) -> None:
  _, scenarios, url, out, num_kills, seed = argv
  rng = random.Random(int(seed))
  results = pathlib.Path(out) / 'results.jsonl'
  kills = 0
  while True:
    child = os.fork()
    if not child:
      os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
      status = 1
      try:
        run(config_of(scenarios, url), Options(out=out))
        status = 0
      finally:
        os._exit(status)
    if kills < int(num_kills):
      _wait(results, rng)
      os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
      sys.exit(f'ended by itself after {kills} kills' if kills < int(num_kills) else os.waitstatus_to_exitcode(status))
    kills += 1
    print(json.dumps({'time': time.monotonic(), 'rows': results.read_text() if results.exists() else ''}), flush=True)


if __name__ == '__main__':
  main(sys.argv)
