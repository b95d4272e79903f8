"""Advantages of traces and turns, in plain NumPy.

Source: arXiv 2606.15532, section 4 (CTC-GRPO). A trace is one talk, a group the
traces of one scenario. Everything is float64; the batch is cast where it is packed.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from eijax.errors import UsageError

GROUPINGS = ('scenario', 'scene')
STD_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdvantageConfig:
  """One advantage estimator.

  alpha: weight of the turn credit; 0 leaves the trace advantage alone (GRPO).
  centred: subtract the trace's mean process reward, so that credit sums to zero.
  sigma_min: floor of the group's standard deviation; 0 switches it off.
  group_by: traces of one 'scenario' or of one 'scene' share mean and deviation.
  """

  alpha: float = 15.0
  centred: bool = True
  sigma_min: float = 0.1
  group_by: str = 'scenario'

  def __post_init__(self):
    for name in ('alpha', 'sigma_min'):
      value = getattr(self, name)
      if not (np.isfinite(value) and value >= 0):
        raise UsageError(f'{name}={value} must be a finite number >= 0; the paper uses '
                         f'{AdvantageConfig.__dataclass_fields__[name].default}')
    if self.group_by not in GROUPINGS:
      raise UsageError(f'group_by={self.group_by!r} is unknown; use one of {", ".join(GROUPINGS)}')


# What an algorithm's name fixes; all else stays at the caller's choice.
ALGORITHMS = {
    'ctc_grpo': {},
    'ctc_grpo_uncentred': {'centred': False},
    'ctc_grpo_no_sigma_min': {'sigma_min': 0.0},
    'ctc_grpo_scene_groups': {'group_by': 'scene'},
    'grpo': {'alpha': 0.0},
}


def algorithm_config(
    name: str, *, alpha: float | None = None, sigma_min: float | None = None, recipe: AdvantageConfig | None = None,
) -> AdvantageConfig:
  """The estimator called `name`, with the user's own alpha and sigma_min where given.

  Args:
    recipe: where alpha and sigma_min come from if neither the user nor the name fixes them.
  Raises:
    UsageError: unknown name, or a value that contradicts what the name fixes.
  """
  if name not in ALGORITHMS:
    raise UsageError(f'algorithm={name!r} is unknown; use one of {", ".join(sorted(ALGORITHMS))}')
  fixed = ALGORITHMS[name]
  given = {key: value for key, value in (('alpha', alpha), ('sigma_min', sigma_min)) if value is not None}
  for key, value in given.items():
    if key in fixed and value != fixed[key]:
      raise UsageError(f'{key}={value} contradicts algorithm={name!r}, which means {key}={fixed[key]}; '
                       f'leave {key} out or use algorithm=ctc_grpo')
  recipe = recipe or AdvantageConfig()
  return AdvantageConfig(**{'alpha': recipe.alpha, 'sigma_min': recipe.sigma_min, **given, **fixed})


def trace_advantages(rewards: np.ndarray, group_ids: np.ndarray, *, sigma_min: float = 0.1) -> np.ndarray:
  """Normalise each trace's reward within its group.

  A = (R - mean) / (max(std, sigma_min) + 1e-6), unbiased std (n - 1); a group of one has mean 0 and
  std 1. Source: arXiv 2606.15532, section 4.

  Args:
    rewards: f[E], one finite reward a trace.
    group_ids: i[E], equal for the traces of one group; any order.
    sigma_min: floor of the standard deviation.
  Returns:
    float64[E].
  Raises:
    ValueError: shapes differ or a reward is not finite (failed talks must be dropped before).
  """
  rewards = np.asarray(rewards, np.float64)
  group_ids = np.asarray(group_ids)
  if rewards.ndim != 1 or rewards.shape != group_ids.shape:
    raise ValueError(f'rewards {rewards.shape} and group_ids {group_ids.shape} must both be [E]')
  if not np.isfinite(rewards).all():
    bad = int(np.flatnonzero(~np.isfinite(rewards))[0])
    raise ValueError(f'rewards[{bad}]={rewards[bad]} must be finite; drop talks without a reward first')
  advantages = np.empty_like(rewards)
  for group in np.unique(group_ids):
    member = group_ids == group
    mean, std = 0.0, 1.0
    if member.sum() > 1:
      mean, std = rewards[member].mean(), rewards[member].std(ddof=1)
    advantages[member] = (rewards[member] - mean) / (max(std, sigma_min) + STD_EPSILON)
  return advantages


def turn_advantages(
    trace_advantage: np.ndarray, process_rewards: Sequence[np.ndarray], *, alpha: float, centred: bool = True,
) -> list[np.ndarray]:
  """Spread each trace's advantage over its turns, plus the turn credit.

  A_t = A + alpha * (r_t - mean_t r_t); a one-turn trace gets A. Uncentred: A_t = A + alpha * r_t.
  Source: arXiv 2606.15532, section 4.

  Args:
    trace_advantage: f[E].
    process_rewards: E arrays f[num_turns], the realised state change of each turn.
    alpha: weight of the credit.
    centred: whether the credit of a trace sums to zero.
  Returns:
    E arrays float64[num_turns].
  """
  if len(trace_advantage) != len(process_rewards):
    raise ValueError(f'{len(trace_advantage)} trace advantages but process rewards of {len(process_rewards)} traces')
  result = []
  for advantage, rewards in zip(trace_advantage, process_rewards):
    rewards = np.asarray(rewards, np.float64)
    if rewards.ndim != 1 or not rewards.size:
      raise ValueError(f'process rewards of a trace must be [num_turns] with at least one turn, not {rewards.shape}')
    baseline = rewards.mean() if centred else 0.0
    result.append(advantage + alpha * (rewards - baseline))
  return result


def estimate_advantages(
    config: AdvantageConfig, *, rewards: np.ndarray, scenario_ids: np.ndarray, scene_ids: np.ndarray,
    process_rewards: Sequence[np.ndarray],
) -> list[np.ndarray]:
  """Turn advantages of a step's traces under `config`: E arrays float64[num_turns]."""
  groups = scenario_ids if config.group_by == 'scenario' else scene_ids
  traces = trace_advantages(rewards, groups, sigma_min=config.sigma_min)
  return turn_advantages(traces, process_rewards, alpha=config.alpha, centred=config.centred)
