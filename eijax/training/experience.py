"""From finished talks to what the learner reads, and the numbers that describe them.

The one place where episodes meet arrays: rewards and process rewards of talks become
advantages, and each turn's token record becomes a turn sample. No jax.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
from typing import Any

import numpy as np

from eijax.errors import EijaxError
from eijax.evaluation.results import result_row
from eijax.learning import packing
from eijax.learning.advantages import AdvantageConfig, estimate_advantages
from eijax.rewards.config import RewardConfig
from eijax.rewards.scores import outcome_score, process_rewards
from eijax.rewards.training import training_reward
from eijax.rollouts.ports import Rollout
from eijax.scenarios.record import SCENES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experience:
  """One step's talks, scored.

  rollouts: all of them. rewards: one each, None where the talk failed.
  advantages: of the turns of each talk that has a reward, float64[num_turns].
  """

  rollouts: Sequence[Rollout]
  rewards: Sequence[float | None]
  advantages: Sequence[np.ndarray]

  @property
  def scored(self) -> list[Rollout]:
    return [rollout for rollout, reward in zip(self.rollouts, self.rewards) if reward is not None]


def score(rollouts: Sequence[Rollout], *, thinking: bool, rewards: RewardConfig, advantages: AdvantageConfig) -> Experience:
  """Rewards and advantages of a step's talks; none of the latter where every talk failed."""
  values = [training_reward(rollout.episode, thinking=thinking, cfg=rewards) for rollout in rollouts]
  scored = [(rollout, value) for rollout, value in zip(rollouts, values) if value is not None]
  if not scored:
    return Experience(rollouts=rollouts, rewards=values, advantages=[])
  ids = [rollout.episode.scenario.id for rollout, _ in scored]
  estimated = estimate_advantages(
      advantages,
      rewards=np.array([value for _, value in scored]),
      scenario_ids=np.unique(ids, return_inverse=True)[1],
      scene_ids=np.array([SCENES.index(rollout.episode.scenario.scene) for rollout, _ in scored]),
      process_rewards=[np.array(process_rewards(rollout.episode)) for rollout, _ in scored])
  return Experience(rollouts=rollouts, rewards=values, advantages=estimated)


def segments(experience: Experience, max_length: int) -> list[packing.Segment]:
  """The turns of all scored talks, merged where one continues the other."""
  result = []
  for rollout, advantages in zip(experience.scored, experience.advantages):
    turns = [
        packing.TurnSample(prompt_ids=sample.prompt_ids, response_ids=sample.response_ids,
                           behavior_log_probs=sample.behavior_log_probs, advantage=float(advantage))
        for sample, advantage in zip(rollout.samples, advantages)
    ]
    result += packing.merge_turns(turns, max_length=max_length)
  return result


def sums(experience: Experience) -> dict[str, Any]:
  """What `metrics` needs of the talks of one process, as plain data: [sum, count] of each mean, and the first failure."""
  episodes = [rollout.episode for rollout in experience.scored]
  rewards = [value for value in experience.rewards if value is not None]
  samples = [sample for rollout in experience.scored for sample in rollout.samples]
  turns = [turn for episode in episodes for turn in episode.turns]
  advantages = [float(value) for values in experience.advantages for value in values]
  means = {
      'reward': rewards,
      **{f'reward/{scene}': [value for episode, value in zip(episodes, rewards) if episode.scenario.scene == scene] for scene in SCENES},
      'outcome_score': [outcome_score(episode).score for episode in episodes],
      'process_reward': [value for episode in episodes for value in process_rewards(episode)],
      'advantage': advantages,
      'squared_advantage': [value * value for value in advantages],
      'rounds_mean': [len(episode.turns) for episode in episodes],
      'response_tokens_mean': [len(sample.response_ids) for sample in samples],
      'truncated_fraction': [turn.reply.truncated for turn in turns],
      'thought_fraction': [turn.reply.has_thought for turn in turns],
      'malformed_fraction': [turn.reply.malformed for turn in turns],
  }
  failed = next((rollout.episode for rollout, reward in zip(experience.rollouts, experience.rewards) if reward is None), None)
  return {
      'means': {name: [math.fsum(values), len(values)] for name, values in means.items()},
      'episodes': len(experience.rollouts), 'failed_episodes': len(experience.rollouts) - len(episodes),
      'first_failure': None if failed is None else f'{failed.ended_by}: {failed.error}',
  }


def metrics(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Numbers of a step's talks, from the `sums` of every process; None where there is nothing to average.

  Raises:
    EijaxError: every talk failed; there is nothing to learn from.
  """
  episodes, failed = (sum(part[name] for part in parts) for name in ('episodes', 'failed_episodes'))
  if episodes == failed:
    first = next(part['first_failure'] for part in parts if part['first_failure'] is not None)
    raise EijaxError(f'all {episodes} talks of this step failed, the first with {first}; mend the cause and start again to resume')
  means = {}
  for name in parts[0]['means']:
    total, count = (math.fsum(part['means'][name][i] for part in parts) for i in range(2))
    means[name] = total / count if count else None
  mean, square = means.pop('advantage'), means.pop('squared_advantage')
  return {**means, 'advantage_std': math.sqrt(max(0.0, square - mean * mean)), 'episodes': episodes, 'failed_episodes': failed}


def episode_rows(experience: Experience) -> list[dict[str, Any]]:
  """The talks as result rows, with group (scenario), trace number, reward and turn advantages."""
  rows, estimated = [], iter(experience.advantages)
  for rollout, reward in zip(experience.rollouts, experience.rewards):
    advantages = [] if reward is None else [round(float(value), 6) for value in next(estimated)]
    rows.append({**result_row(rollout.episode), 'group': rollout.episode.scenario.id, 'key': rollout.job.key,
                 'reward': reward, 'advantages': advantages})
  return rows
