"""Result rows and the summary of an evaluation on EIBench scenarios."""

import collections
import math
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.episodes.imitation import imitations
from eijax.episodes.state import ENDED_BY, Episode
from eijax.evaluation.statistics import clustered_mean
from eijax.rewards.scores import outcome_score
from eijax.scenarios.record import SCENES

MAX_FAILED_SHARE = 0.05


def result_row(episode: Episode) -> dict[str, Any]:
  """One talk as an object for results.jsonl; scores in -1..1, None where the talk failed.

  A turn's `flags` name what its visible reply imitates (eijax.episodes.imitation); they are
  empty for plain speech. `closing` is there only where the policy spoke once more after the
  last round.
  """
  score = outcome_score(episode)
  row = {
      'id': episode.scenario.id,
      'scene_tag': episode.scenario.scene,
      'score': score.score if score else None,
      'anger_score': score.anger_score if score else None,
      'trust_score': score.trust_score if score else None,
      'final_anger': episode.state.anger,
      'final_trust': episode.state.trust,
      'num_rounds': len(episode.turns),
      'ended_by': episode.ended_by,
      'stop_reason': episode.stop_reason,
      'truncated_turns': sum(turn.reply.truncated for turn in episode.turns),
      'turns': [
          {
              'defender': turn.reply.visible,
              'thought': turn.reply.thought,
              'simulator': turn.simulator,
              'anger': turn.anger,
              'trust': turn.trust,
              'anger_delta': turn.anger_delta,
              'trust_delta': turn.trust_delta,
              'reflection': _storable(turn.reflection),
              'flags': list(imitations(turn.reply.visible)),
          }
          for turn in episode.turns
      ],
      'error': episode.error,
  }
  if episode.closing is not None:
    row['closing'] = {'defender': episode.closing.visible, 'thought': episode.closing.thought}
  return row


def _storable(value: object, depth: int = 8) -> object:
  """A simulator's reflection as JSON can hold it: it is whatever the model wrote."""
  if isinstance(value, Mapping) and depth:
    return {str(name): _storable(item, depth - 1) for name, item in value.items()}
  if isinstance(value, (list, tuple)) and depth:
    return [_storable(item, depth - 1) for item in value]
  if value is None or isinstance(value, (str, bool)):
    return value
  if isinstance(value, int) and value.bit_length() <= 64 or isinstance(value, float) and math.isfinite(value):
    return value
  return f'({type(value).__name__})'  # NaN, a number of a thousand digits, ten nested lists.


def _part(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
  interval = clustered_mean([100 * row['score'] for row in rows], [row['id'] for row in rows], seed=seed)
  ci95 = [interval.low, interval.high]
  return {
      'score': _rounded(interval.mean), 'ci95': [_rounded(bound) for bound in ci95], 'n': interval.num
  }


def _rounded(value: float | None) -> float | None:
  # Far below any interval; spares the reader the noise of binary fractions.
  return None if value is None else round(value, 6)


def summarise(
    rows: Sequence[Mapping[str, Any]], model: str, simulator: str, *, seed: int = 0
) -> dict[str, Any]:
  """Summary of all rows: mean scores x100, the scale of the paper's tables.

  Failed talks are counted in `failed` and left out of the means. Intervals are 95 %
  bootstrap percentiles over scenarios. A part without scored talks has score None and
  ci95 [None, None].

  Args:
    rows: their talks are not needed; `flagged_turns` counts the turns with flags.
  """
  scored = [row for row in rows if row['score'] is not None]
  counts = collections.Counter(row.get('ended_by') for row in rows)
  return {
      'model': model,
      'simulator': simulator,
      'n': len(rows),
      'failed': len(rows) - len(scored),
      'overall': _part(scored, seed),
      'scenes': {
          scene: _part([row for row in scored if row['scene_tag'] == scene], seed) for scene in SCENES
      },
      'ended_by': {name: counts[name] for name in ENDED_BY},
      'truncated_turns': sum(row.get('truncated_turns', 0) for row in rows),
      'flagged_turns': sum(row.get('flagged_turns', 0) for row in rows),
  }


def too_many_failed(summary: Mapping[str, Any]) -> bool:
  """Whether more than 5 % of the talks failed, so that the means may mislead."""
  return summary['failed'] > MAX_FAILED_SHARE * summary['n']
