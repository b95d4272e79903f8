"""The reward that training maximises: outcome score less penalties."""

from eijax.episodes.state import Episode
from eijax.rewards.config import RewardConfig
from eijax.rewards.format_faults import turn_faults
from eijax.rewards.scores import outcome_score


def penalties(episode: Episode, *, thinking: bool, cfg: RewardConfig) -> dict[str, float]:
  """Penalties of one talk, each >= 0, by name. The veto is not among them."""
  num_turns = len(episode.turns)
  if num_turns == 0:
    return {'missing_think': 0.0, 'parse': 0.0, 'format': 0.0}
  replies = [turn.reply for turn in episode.turns]
  missing = sum(not reply.has_thought for reply in replies) / num_turns if thinking else 0.0
  result = {
      'missing_think': cfg.missing_think_penalty * missing,
      'parse': cfg.parse_penalty * any(reply.malformed for reply in replies),
      'format': 0.0,
  }
  if cfg.format_penalty:
    faulty = sum(bool(faults) for faults in turn_faults(replies))
    result['format'] = cfg.format_penalty * faulty / num_turns
  return result


def training_reward(
    episode: Episode, *, thinking: bool, cfg: RewardConfig = RewardConfig()
) -> float | None:
  """Outcome score less penalties, clipped to -1..1. Source: arXiv 2606.15532, section 4.

  Args:
    episode: a talk that has ended.
    thinking: whether the policy was told to think; only then is a missing thought penalised.
    cfg: penalties.
  Returns:
    None where the talk failed: it has no reward, and training leaves it out.
  """
  score = outcome_score(episode)
  if score is None:
    return None
  if cfg.hard_veto and any(turn_faults([turn.reply for turn in episode.turns])):
    return -1.0
  reward = score.score - sum(penalties(episode, thinking=thinking, cfg=cfg).values())
  return max(-1.0, min(1.0, reward))
