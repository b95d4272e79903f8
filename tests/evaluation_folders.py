"""Evaluation folders for tests: scripted defenders against the embedded simulator, and made-up ones of any size."""

import functools
import json
import pathlib

import numpy as np
import spellchecker

from eijax.evaluation.results import result_row, summarise
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES
from eijax.scripted.defenders import get
from eijax.scripted.play import play
from eijax.simulator.embedded import EmbeddedSimulator

SCENARIO_DATA = pathlib.Path(__file__).resolve().parent.parent / 'scenario_data'
_START = {'support': (70, 30), 'defense': (75, 25), 'repair': (70, 20), 'charm': (35, 30)}
_TARGET = {'support': (40, 75), 'defense': (30, 50), 'repair': (20, 70), 'charm': (10, 60)}
_WORST = {'support': (90, 5), 'defense': (95, 5), 'repair': (90, 0), 'charm': (60, 5)}
_RULES = ('earned', 'nothing_new', 'canned', 'lecture', 'list', 'empty_apology', 'evasion', 'same_line', 'long')
_FLAGS = ('simulator_json', 'system_text', 'delimiter')


def write_folder(folder, rows, model='a model', settings=None, **more) -> pathlib.Path:
  """A finished evaluation; settings are its config.json, `more` are further keys of its summary."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  (folder / 'results.jsonl').write_bytes(text.encode('utf-8', 'replace'))
  if settings is not None:
    (folder / 'config.json').write_text(json.dumps(settings), encoding='utf-8')
  (folder / 'summary.json').write_text(json.dumps(summarise(rows, model, 'embedded') | more), encoding='utf-8')
  return folder


@functools.cache
def held_out_scenarios(per_scene):
  scenarios = load_split(SCENARIO_DATA, 'test')
  return tuple(
      scenario for scene in SCENES for scenario in [item for item in scenarios if item.scene == scene][:per_scene]
  )


@functools.cache
def scripted_rows(defender, per_scene, samples=1, seed=0):
  """Rows of a scripted defender on held-out scenarios; with several samples each has `sample`."""
  answer = EmbeddedSimulator(seed).answer
  rows = []
  for scenario in held_out_scenarios(per_scene):
    for sample in range(samples):
      episode = play(scenario, get(defender), answer, seed=seed * 7919 + sample)
      row = result_row(episode)
      for turn, played in zip(row['turns'], episode.turns):
        turn['reflection'] = played.reflection
      rows.append(row | ({'sample': sample} if samples > 1 else {}))
  return tuple(rows)


@functools.cache
def _words():
  frequencies = spellchecker.SpellChecker(language='en').word_frequency.dictionary
  common = sorted(frequencies, key=lambda word: (-frequencies[word], word))[:20_000]
  weights = np.array([frequencies[word] for word in common], np.float64)
  return np.array(common), np.cumsum(weights / weights.sum())


class Prose:
  """Endless text of words drawn by their frequency in English; it compresses about as written English does."""

  def __init__(self, rng):
    self._rng, self._drawn, self._next = rng, [], 0

  def __call__(self, num_words):
    if self._next + num_words > len(self._drawn):
      words, cumulative = _words()
      places = np.searchsorted(cumulative, self._rng.random(100_000))
      self._drawn, self._next = words[np.minimum(places, len(words) - 1)].tolist(), 0
    self._next += num_words
    return ' '.join(self._drawn[self._next - num_words : self._next]).capitalize() + '.'


def made_up_rows(rng, skill, per_scene, num_turns=None):
  """Rows of a model of a skill in 0..1, per_scene talks of each scene, with texts of usual length."""
  prose = Prose(rng)
  return [
      made_up_row(rng, prose, scene, f'{scene}-test-{index:03d}', skill, num_turns)
      for scene, number in zip(SCENES, per_scene)
      for index in range(1, number + 1)
  ]


def made_up_row(rng, prose, scene, name, skill, num_turns=None):
  anger, trust = _START[scene]
  turns = []
  last = num_turns or int(rng.integers(4, 9))
  for _ in range(last):
    good = rng.random() < 0.2 + 0.6 * skill
    steps = np.round(rng.normal((-3, 4) if good else (2, -2), 2)).astype(int)
    new = int(np.clip(anger + steps[0], 0, 100)), int(np.clip(trust + steps[1], 0, 100))
    rule = str(rng.choice(_RULES[:1] if good else _RULES[1:]))
    turns.append({
        'defender': prose(int(rng.integers(12, 50))), 'thought': prose(int(rng.integers(20, 80))),
        'simulator': prose(int(rng.integers(8, 25))),
        'anger': new[0], 'trust': new[1], 'anger_delta': new[0] - anger, 'trust_delta': new[1] - trust,
        'reflection': {
            'core_need': prose(10), 'reply_quality': prose(14), 'inertia_check': prose(8),
            'decision': prose(10), 'tone': prose(5), 'rule': rule,
        },
        'flags': [str(rng.choice(_FLAGS))] if rng.random() < 0.01 else [],
    })
    anger, trust = new
  axes = [_axis(anger, 0, scene), _axis(trust, 1, scene)]
  return {
      'id': name, 'scene_tag': scene, 'score': sum(axes) / 2, 'anger_score': axes[0], 'trust_score': axes[1],
      'final_anger': anger, 'final_trust': trust, 'num_rounds': last, 'truncated_turns': int(rng.random() < 0.02),
      'ended_by': 'max_rounds' if last == 8 else 'simulator_stop', 'stop_reason': '' if last == 8 else 'idling',
      'turns': turns, 'error': None,
  }


def fail(row):
  """The row as it would be had the simulator failed in the third round."""
  return row | {
      'score': None, 'anger_score': None, 'trust_score': None, 'turns': row['turns'][:2], 'num_rounds': 2,
      'ended_by': 'simulator_failed', 'stop_reason': '', 'error': 'no answer could be read after 3 attempts',
  }


def _axis(value, which, scene):
  start, target, worst = _START[scene][which], _TARGET[scene][which], _WORST[scene][which]
  toward = (value - start) / (target - start)
  return min(1.0, toward) if toward >= 0 else max(-1.0, -(value - start) / (worst - start))
