"""Outcome score and process rewards of a talk. Source: arXiv 2606.15532, sections 3 and 4."""

import dataclasses

from eijax.episodes.protocol import is_failed
from eijax.episodes.state import EmotionState, Episode
from eijax.scenarios.record import Anchors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
  """Scores in -1..1: start is 0, target is +1, worst is -1."""

  score: float
  anger_score: float
  trust_score: float


def axis_score(value: float, *, initial: float, target: float, worst: float) -> float:
  """Score one axis, piecewise linear between its three anchors and clipped to -1..1.

  Raises:
    ValueError: unless initial lies strictly between target and worst.
  """
  if not min(target, worst) < initial < max(target, worst):
    raise ValueError(
        f'initial={initial} must lie strictly between target={target} and worst={worst}; '
        'mend the anchors of the scenario'
    )
  if (value - initial) * (target - initial) >= 0:
    return min(1.0, (value - initial) / (target - initial))
  return max(-1.0, -(value - initial) / (worst - initial))


def state_score(anchors: Anchors, state: EmotionState) -> Score:
  """Score a state: half the anger score and half the trust score."""
  anger = axis_score(
      state.anger,
      initial=anchors.initial_anger, target=anchors.target_anger, worst=anchors.worst_anger,
  )
  trust = axis_score(
      state.trust,
      initial=anchors.initial_trust, target=anchors.target_trust, worst=anchors.worst_trust,
  )
  return Score(score=0.5 * anger + 0.5 * trust, anger_score=anger, trust_score=trust)


def outcome_score(episode: Episode) -> Score | None:
  """Score the state in which a talk ended; None where the talk failed.

  Raises:
    ValueError: if the talk is still open.
  """
  if episode.ended_by is None:
    raise ValueError(
        f'episode of scenario {episode.scenario.id!r} is still open; score it when it has ended'
    )
  if is_failed(episode):
    return None
  return state_score(episode.scenario.anchors, episode.state)


def process_rewards(episode: Episode) -> list[float]:
  """Reward each turn by its realised change: r_t = 0.5 (-Δanger_t / 100) + 0.5 (Δtrust_t / 100).

  Returns:
    one float per turn, each in -0.1..0.1 where the simulator answers in deltas.
  """
  return [
      0.5 * (-turn.anger_delta / 100) + 0.5 * (turn.trust_delta / 100) for turn in episode.turns
  ]
