"""Play the scripted defenders against the embedded simulator and print the table.

  python experiments/calibration_panel.py --split=test

The first thing to run after changing the simulator. Expected (mean score x100):
skilled > +40; decent +5..+35; polite_generic -35..-10; over_apologiser, lecturer,
list_maker, yielder < -25; hostile, silent, fact_bag < -60.
"""

import contextlib
import json
import pathlib
import sys
import time

import numpy as np
import requests
from absl import app, flags

from eijax.errors import EijaxError, UsageError
from eijax.rewards.scores import outcome_score
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES, SPLITS
from eijax.scripted.defenders import PANEL, get
from eijax.scripted.play import play
from eijax.simulator.embedded import EmbeddedSimulator
from eijax.simulator.process import running_server

BOOTSTRAP_SAMPLES = 2000

_SCENARIOS = flags.DEFINE_string('scenarios', 'scenario_data', 'Folder with train/ and test/.')
_SPLIT = flags.DEFINE_enum('split', 'test', SPLITS, 'Which scenarios to play.')
_SAMPLES = flags.DEFINE_integer('samples', 4, 'Talks per scenario and defender.', lower_bound=1)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the simulator and of the lines.')
_ROUNDS = flags.DEFINE_integer('max_rounds', 8, 'Rounds of a talk.', lower_bound=1)
_DEFENDERS = flags.DEFINE_list('defenders', None, 'Defenders to play; default: the whole panel.')
_HTTP = flags.DEFINE_bool(
  'http', False, 'Talk to the simulator over HTTP, in a process of its own.'
)
_OUT = flags.DEFINE_string('out', None, 'Folder for table.md and talks.jsonl.')


def panel_scores(
  scenarios, names, answer, *, samples, seed, max_rounds=8, on_talk=None
) -> dict[str, dict[str, list[float]]]:
  """Return defender -> scenario id -> scores x100."""
  scores = {}
  for name in names:
    scores[name] = {}
    for scenario in scenarios:
      for sample in range(samples):
        episode = play(
          scenario, get(name), answer, seed=seed * 7919 + sample, max_rounds=max_rounds
        )
        score = 100 * outcome_score(episode).score
        scores[name].setdefault(scenario.id, []).append(score)
        if on_talk:
          on_talk(name, episode, score)
  return scores


def interval(values: dict[str, list[float]], seed: int) -> tuple[float, float, float]:
  """Return (mean, low, high): bootstrap 95 % interval, clustered by scenario."""
  means = np.array([np.mean(scores) for scores in values.values()])
  draws = np.random.default_rng(seed).integers(len(means), size=(BOOTSTRAP_SAMPLES, len(means)))
  low, high = np.percentile(means[draws].mean(axis=1), (2.5, 97.5))
  return float(means.mean()), float(low), float(high)


def table(scores: dict[str, dict[str, list[float]]], scene_of: dict[str, str], seed: int) -> str:
  """Return the Markdown table: a row a defender, a column a scene."""
  rows = [
    '| defender | ' + ' | '.join(SCENES) + ' | overall |',
    '|---|' + '---|' * (len(SCENES) + 1),
  ]
  for name, by_scenario in scores.items():
    cells = []
    for scene in (*SCENES, None):
      chosen = {key: value for key, value in by_scenario.items() if scene in (None, scene_of[key])}
      cells.append('{:+.1f} [{:+.1f}, {:+.1f}]'.format(*interval(chosen, seed)) if chosen else '')
    rows.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(rows)


@contextlib.contextmanager
def _simulator(seed: int, over_http: bool):
  """Yield a function (messages, seed) -> answer text."""
  if not over_http:
    yield EmbeddedSimulator(seed).answer
    return
  with running_server(seed=seed) as url, requests.Session() as session:

    def answer(messages, request_seed):
      response = session.post(
        f'{url}/chat/completions', json={'messages': messages, 'seed': request_seed}, timeout=30
      )
      response.raise_for_status()
      return response.json()['choices'][0]['message']['content']

    yield answer


def _run() -> None:
  names = _DEFENDERS.value or list(PANEL)
  for name in names:
    try:
      get(name)
    except ValueError as error:
      raise UsageError(f'--defenders: {error}') from error
  scenarios = load_split(pathlib.Path(_SCENARIOS.value), _SPLIT.value)
  talks, num_calls = [], 0

  def keep(name, episode, score):
    nonlocal num_calls
    num_calls += len(episode.turns)
    talks.append(
      {
        'defender': name,
        'id': episode.scenario.id,
        'score': round(score, 1),
        'ended_by': episode.ended_by,
        'turns': [
          {
            'defender': turn.reply.visible,
            'simulator': turn.simulator,
            'anger': turn.anger,
            'trust': turn.trust,
            'rule': turn.reflection.get('rule', ''),
          }
          for turn in episode.turns
        ],
      }
    )

  start = time.perf_counter()
  with _simulator(_SEED.value, _HTTP.value) as answer:
    scores = panel_scores(
      scenarios,
      names,
      answer,
      samples=_SAMPLES.value,
      seed=_SEED.value,
      max_rounds=_ROUNDS.value,
      on_talk=keep,
    )
  text = table(scores, {scenario.id: scenario.scene for scenario in scenarios}, _SEED.value)
  print(text)
  secs = time.perf_counter() - start
  print(
    f'{len(talks)} talks, {num_calls} calls, {1e3 * secs / num_calls:.2f} ms a call, lines included',
    file=sys.stderr,
  )
  if _OUT.value:
    folder = pathlib.Path(_OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'table.md').write_text(text + '\n', encoding='utf-8')
    (folder / 'talks.jsonl').write_text(
      ''.join(json.dumps(talk, ensure_ascii=False) + '\n' for talk in talks), encoding='utf-8'
    )


def main(argv: list[str]) -> None:
  del argv
  try:
    _run()
  except EijaxError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(error.exit_code)


if __name__ == '__main__':
  app.run(main)
