"""Run folders as a training leaves them, made up from a seed, for tests of the report."""

import json
import pathlib

import numpy as np

from eijax.evaluation.results import summarise
from eijax.scenarios.record import SCENES

_START = {'support': (70, 30), 'defense': (75, 25), 'repair': (70, 20), 'charm': (35, 30)}
_TARGET = {'support': (40, 75), 'defense': (30, 50), 'repair': (20, 70), 'charm': (10, 60)}
_WORST = {'support': (90, 5), 'defense': (95, 5), 'repair': (90, 0), 'charm': (60, 5)}
_TITLES = {
    'support': 'The empty chair', 'defense': 'Half the deposit by Friday', 'repair': 'The joke at the leaving do',
    'charm': 'Window seat, coach seven',
}
_OPENINGS = {
    'support': 'I set the table for two again tonight. I only noticed when the water had gone cold.',
    'defense': 'Forty days I have been waiting for my deposit. You pay it today or I am telling everybody in the house.',
    'repair': 'So it was funny, was it? They were all looking at me, and you went on.',
}
_WEAK = (
    'I understand how you feel. Everything will be fine.',
    'First, you should stay calm. Second, please think positively. Third, we can talk about it later.',
    'Sorry. I am really sorry. I apologise for any inconvenience.',
    'That is just how things are, you know. Other people have it worse.',
)
_STRONG = (
    'You set out the second plate because for thirty-one years there was somebody to eat from it. What did she say when it was late?',
    'I told the story about your stammer to twelve people, and I saw your face and did not stop. That was me. '
    'I will tell them so on Monday, at the meeting, before you come in.',
    'The deposit goes out when the meter has been read. The reader comes on Thursday at nine; I will send you the '
    'figure the same day, and you have the rest by Friday noon.',
    'You read the last page first. I would like to hear the defence for that, it had better be good.',
)
_ANSWERS = (
    'You said that already.', 'And what does that change for me?', 'Go on. I am listening, but I am not convinced.',
    'Thursday at nine. And if nobody comes? You see, that is what happened the last time, and the time before that.',
    'She used to hum. I had forgotten that she used to hum.',
)


def make_run(
    folder, *, seed=0, num_steps=60, steps_done=None, eval_steps=None, per_scene=8, embedded=True, thinking=False, gain=1.0
) -> pathlib.Path:
  """A run folder, with its scenarios beside it under `scenarios/`.

  eval_steps: steps with an evaluation; by default the first and, in a finished run, the last.
  gain: how much better the policy gets; 0 is not at all.
  """
  folder = pathlib.Path(folder)
  rng = np.random.default_rng(seed)
  steps_done = num_steps if steps_done is None else steps_done
  if eval_steps is None:
    eval_steps = (0, num_steps) if steps_done == num_steps else (0,)
  write_json(folder / 'config.json', _config(folder, seed, num_steps, embedded))
  write_lines(folder / 'metrics.jsonl', _metrics(rng, num_steps, steps_done, gain))
  ids = {scene: [f'{scene}-test-{index:03d}' for index in range(1, per_scene + 1)] for scene in SCENES}
  for scene in SCENES:
    write_lines(
        folder / 'scenarios' / 'test' / f'{scene}_final.jsonl',
        [_scenario(scene, name, index) for index, name in enumerate(ids[scene])],
    )
  for step in eval_steps:
    skill = gain * step / max(1, num_steps)
    rows = [make_row(rng, scene, name, skill, thinking) for scene in SCENES for name in ids[scene]]
    write_evaluation(folder, step, rows)
  return folder


def write_evaluation(folder, step, rows):
  place = pathlib.Path(folder) / 'eval' / f'step_{step:06d}'
  write_lines(place / 'results.jsonl', rows)
  write_json(place / 'summary.json', summarise(rows, 'demo', 'embedded'))


def make_row(rng, scene, name, skill, thinking=False):
  """One talk; skill 0 is the first policy, 1 a good one."""
  anger, trust = _START[scene]
  turns = []
  drift = rng.normal(0, 1)
  for number in range(8):
    good = rng.random() < 0.15 + 0.7 * skill
    anger_delta = int(np.clip(round(rng.normal(-4 if good else 2.5, 1.5) - drift), -10, 10))
    trust_delta = int(np.clip(round(rng.normal(5 if good else -2, 1.5) + drift), -10, 10))
    new = int(np.clip(anger + anger_delta, 0, 100)), int(np.clip(trust + trust_delta, 0, 100))
    turns.append({
        'defender': str(rng.choice(_STRONG if good else _WEAK)),
        'thought': 'She wants to hear the name, not advice.' if thinking else '',
        'simulator': str(rng.choice(_ANSWERS)),
        'anger': new[0], 'trust': new[1], 'anger_delta': new[0] - anger, 'trust_delta': new[1] - trust,
    })
    anger, trust = new
    if number >= 4 and (trust >= _TARGET[scene][1] or trust == 0):
      break
  stopped = len(turns) < 8
  axes = [_axis(anger, 0, scene), _axis(trust, 1, scene)]
  return {
      'id': name, 'scene_tag': scene, 'score': sum(axes) / 2, 'anger_score': axes[0], 'trust_score': axes[1],
      'final_anger': anger, 'final_trust': trust, 'num_rounds': len(turns),
      'ended_by': 'simulator_stop' if stopped else 'max_rounds', 'stop_reason': 'Nothing is left to ask.' if stopped else '',
      'turns': turns, 'error': None,
  }


def fail(row):
  """The row as it would be had the simulator failed in the third round."""
  return row | {
      'score': None, 'anger_score': None, 'trust_score': None, 'turns': row['turns'][:2], 'num_rounds': 2,
      'ended_by': 'simulator_failed', 'stop_reason': '', 'error': 'no answer could be read after 8 attempts',
  }


def _axis(value, which, scene):
  start, target, worst = _START[scene][which], _TARGET[scene][which], _WORST[scene][which]
  toward = (value - start) / (target - start)
  return min(1.0, toward) if toward >= 0 else max(-1.0, -(value - start) / (worst - start))


def _config(folder, seed, num_steps, embedded):
  endpoint = {'model': 'embedded', 'embedded': True}
  if not embedded:
    endpoint = {'model': 'qwen3-max', 'urls': ['http://one.example/v1', 'http://two.example/v1']}
  return {
      'preset': 'demo', 'algorithm': 'ctc_grpo', 'seed': seed, 'num_steps': num_steps, 'scenarios': str(folder / 'scenarios'),
      'scenarios_per_step': 8, 'group_size': 8, 'max_rounds': 8, 'alpha': 15.0, 'sigma_min': 0.1, 'clip_epsilon': 0.2,
      'learning_rate': 3e-4, 'entropy_coef': 0.001, 'thinking': False,
      'policy': {'num_layers': 4, 'hidden': 192, 'num_heads': 6, 'num_kv_heads': 2, 'vocab': 4096},
      'simulator': endpoint, 'mesh': {'data': 1, 'fsdp': 1, 'tensor': 1},
      'versions': {'python': '3.11.9', 'jax': '0.10.2', 'flax': '0.12.8'}, 'git_revision': '0f2c9a1',
  }


def _metrics(rng, num_steps, steps_done, gain):
  rows = []
  for step in range(1, steps_done + 1):
    skill = gain * (1 - np.exp(-3 * step / num_steps))
    reward = -0.35 + 0.75 * skill + rng.normal(0, 0.06)
    row = {'step': step, 'reward': reward, 'process_reward': 0.002 * skill, 'outcome_score': reward}
    for index, scene in enumerate(SCENES):
      talked = step % 5 != index
      row[f'reward/{scene}'] = reward + 0.1 * (index - 1.5) + rng.normal(0, 0.1) if talked else None
    rollout, update = 4 + rng.gamma(2, 0.4), 1.5 + rng.normal(0, 0.1)
    row |= {
        'advantage_std': 0.9, 'loss': rng.normal(0, 0.01), 'clip_fraction': abs(rng.normal(0.03, 0.01)),
        'entropy': 1.9 - 0.9 * skill + rng.normal(0, 0.03), 'approx_kl_k3': abs(rng.normal(0.002, 0.0007)),
        'importance_ratio_max': 1.6, 'grad_norm': rng.gamma(4, 0.1), 'learning_rate': 3e-4,
        'response_tokens_mean': 31 + 14 * skill + rng.normal(0, 1.5), 'truncated_fraction': 0.01, 'thought_fraction': 0.0,
        'episodes': 64, 'failed_episodes': 0, 'rounds_mean': 6.5 + 0.8 * skill + rng.normal(0, 0.2),
        'simulator_latency_secs_mean': 0.02, 'simulator_latency_secs_p95': 0.05, 'simulator_retries': 0,
        'simulator_parse_retries': 0, 'tokens_per_sec': 2100.0, 'seconds/rollout': rollout, 'seconds/update': update,
        'seconds/checkpoint': 0.9 if step % 10 == 0 else 0.0, 'seconds/total': rollout + update + 0.15,
    }
    rows.append({key: float(value) if isinstance(value, np.floating) else value for key, value in row.items()})
  return rows


def _scenario(scene, name, index):
  anger, trust = _START[scene]
  record = {
      'id': name, 'title': f'{_TITLES[scene]}, {index + 1}', 'scene_tag': scene, 'data_source': 'made-up',
      'aggressor_profile': {'system_prompt': '### Background\nYou are Ann, and you have waited long.'},
      'defender_profile': {'system_prompt': '### Background\nYou are Bo.'},
      'goal_one_liner': 'Stay with what was said and answer it.', 'success_criteria': ['Ann goes on talking.'],
      'must_avoid': ['Advice.'], 'initial_calibration': {'initial_anger': anger, 'initial_trust': trust},
      'rub_goals': {'target_anger': _TARGET[scene][0], 'target_trust': _TARGET[scene][1]},
      'worst_case': {'worst_anger_min': _WORST[scene][0], 'worst_trust_min': _WORST[scene][1]},
  }
  if scene in _OPENINGS:
    record['aggressor_profile']['opening_line'] = _OPENINGS[scene]
  return record


def write_json(path, obj):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(obj), encoding='utf-8')


def write_lines(path, objs):
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(obj) + '\n' for obj in objs), encoding='utf-8')
