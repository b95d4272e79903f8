"""What the turn credit does to learning: runs of ctc_grpo and grpo side by side.

    for seed in 0 1 2; do for algorithm in ctc_grpo grpo; do
      python -m eijax.train --algorithm=$algorithm --seed=$seed
    done; done
    python experiments/turn_credit.py runs/demo-*

Prints a Markdown table of the held-out scores before and after each run, and of the
training reward over the steps; --out writes the curves as a PNG.
"""

import pathlib
import sys

from absl import app, flags
import matplotlib
import numpy as np

from eijax import jsonl
from eijax.errors import DataError, EijaxError, UsageError
from eijax.evaluation.store import read_summary

matplotlib.use('Agg')
import matplotlib.pyplot as plt  # pylint: disable=wrong-import-position

_OUT = flags.DEFINE_string('out', None, 'PNG file for the training curves.')
# Steps whose mean reward is shown: start, middle and end of a run.
NUM_WINDOWS = 4


def read_run(folder: str) -> dict:
  """Settings, first and last evaluation, and rewards of a finished run."""
  path = pathlib.Path(folder)
  config = jsonl.read_json(path / 'config.json')
  last = path / 'eval' / f'step_{config["num_steps"]:06d}'
  if not (last / 'summary.json').exists():
    raise DataError(f'{path}: the run has not finished ({last} is missing); start it again to resume')
  rewards = [100 * row['reward'] for row in jsonl.read_objects(path / 'metrics.jsonl')]
  return {
      'algorithm': config['algorithm'], 'seed': config['seed'], 'rewards': np.array(rewards),
      'before': read_summary(path / 'eval' / 'step_000000')['overall'], 'after': read_summary(last)['overall'],
  }


def _shown(part: dict) -> str:
  return f'{part["score"]:+.1f} [{part["ci95"][0]:+.1f}, {part["ci95"][1]:+.1f}]'


def table(runs: list[dict]) -> str:
  """Markdown: a row a run, then the mean gain of each algorithm."""
  num_steps = max(len(run['rewards']) for run in runs)
  edges = np.linspace(0, num_steps, NUM_WINDOWS + 1).astype(int)
  windows = [f'{low + 1}–{high}' for low, high in zip(edges, edges[1:])]
  lines = [
      '| algorithm | seed | held-out before [95 %] | held-out after [95 %] | gain | '
      + ' | '.join(f'reward, steps {window}' for window in windows) + ' |',
      '|---|---|---|---|---|' + '---|' * NUM_WINDOWS,
  ]
  for run in runs:
    means = [run['rewards'][low:high].mean() for low, high in zip(edges, edges[1:])]
    lines.append(
        f'| {run["algorithm"]} | {run["seed"]} | {_shown(run["before"])} | {_shown(run["after"])} | '
        f'{run["after"]["score"] - run["before"]["score"]:+.1f} | ' + ' | '.join(f'{mean:+.1f}' for mean in means) + ' |')
  for algorithm in sorted({run['algorithm'] for run in runs}):
    own = [run for run in runs if run['algorithm'] == algorithm]
    gains = [run['after']['score'] - run['before']['score'] for run in own]
    means = [np.mean([run['rewards'][low:high].mean() for run in own]) for low, high in zip(edges, edges[1:])]
    lines.append(f'| **{algorithm}** | mean of {len(own)} | {np.mean([r["before"]["score"] for r in own]):+.1f} | '
                 f'{np.mean([r["after"]["score"] for r in own]):+.1f} | {np.mean(gains):+.1f} | '
                 + ' | '.join(f'{mean:+.1f}' for mean in means) + ' |')
  return '\n'.join(lines)


def draw(runs: list[dict], path: str) -> None:
  """Training reward by step, a thin line a run and a thick one for each algorithm's mean."""
  figure, axes = plt.subplots(figsize=(7, 4), layout='constrained')
  for algorithm, colour in zip(sorted({run['algorithm'] for run in runs}), plt.get_cmap('tab10').colors):
    own = [run['rewards'] for run in runs if run['algorithm'] == algorithm]
    for rewards in own:
      axes.plot(np.arange(1, len(rewards) + 1), rewards, color=colour, alpha=0.35, linewidth=1)
    shortest = min(map(len, own))
    axes.plot(np.arange(1, shortest + 1), np.mean([r[:shortest] for r in own], axis=0), color=colour, linewidth=2.5,
              label=f'{algorithm}, mean of {len(own)}')
  axes.set_xlabel('training step')
  axes.set_ylabel('training reward (x100)')
  axes.legend()
  figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
  try:
    if len(argv) < 2:
      raise UsageError('give the folders of finished runs, e.g. runs/demo-*')
    runs = sorted((read_run(folder) for folder in argv[1:]), key=lambda run: (run['algorithm'], run['seed']))
    print(table(runs))
    if _OUT.value:
      draw(runs, _OUT.value)
  except EijaxError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(error.exit_code)


if __name__ == '__main__':
  app.run(main)
