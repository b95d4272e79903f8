"""The talk as a state machine of pure functions. Source: arXiv 2606.15532, section 2."""

import dataclasses

from eijax.episodes.state import ENDED_BY, EmotionState, Episode, Reply, SimulatorAnswer, Turn
from eijax.scenarios.record import Scenario

MAX_DELTA = 10
MAX_LEVEL = 100
FAILED = ('simulator_failed', 'model_failed')


def _clip(value: int, low: int, high: int) -> int:
  return max(low, min(high, value))


def is_failed(episode: Episode) -> bool:
  """Whether the talk ended by a failure, and so has no score."""
  return episode.ended_by in FAILED


def start(scenario: Scenario, *, max_rounds: int, seed: int, closing_reply: bool = False) -> Episode:
  """Open a talk at the scenario's initial anger and trust.

  Args:
    closing_reply: see Episode; it changes nothing in a scene that the user opens.
  """
  if max_rounds < 1:
    raise ValueError(f'max_rounds={max_rounds} must be >= 1; the paper uses 8')
  state = EmotionState(
      anger=scenario.anchors.initial_anger, trust=scenario.anchors.initial_trust
  )
  return Episode(
      scenario=scenario, max_rounds=max_rounds, seed=seed, state=state,
      closing_reply=closing_reply and scenario.opening_line is None,
  )


def next_state(state: EmotionState, answer: SimulatorAnswer) -> EmotionState:
  """Apply an answer: deltas clipped to -10..10, then the state to 0..100.

  Absolute levels count only where the answer has no delta at all; the axis that an
  answer does not mention stays.
  """
  if answer.anger_delta is None and answer.trust_delta is None:
    if answer.anger is None and answer.trust is None:
      raise ValueError('answer has neither deltas nor levels; it must have one of them')
    anger = state.anger if answer.anger is None else answer.anger
    trust = state.trust if answer.trust is None else answer.trust
  else:
    anger = state.anger + _clip(answer.anger_delta or 0, -MAX_DELTA, MAX_DELTA)
    trust = state.trust + _clip(answer.trust_delta or 0, -MAX_DELTA, MAX_DELTA)
  return EmotionState(anger=_clip(anger, 0, MAX_LEVEL), trust=_clip(trust, 0, MAX_LEVEL))


def advance(episode: Episode, reply: Reply, answer: SimulatorAnswer) -> Episode:
  """Append one round; ends the talk when the user stops or after max_rounds.

  A talk with a closing reply stays open for it after max_rounds, see `awaits_closing`.

  Raises:
    ValueError: if the talk has ended already or awaits its closing reply, or the answer
      changes nothing and gives no level.
  """
  _check_open(episode)
  if awaits_closing(episode):
    raise ValueError(
        f'episode of scenario {episode.scenario.id!r} has had its {episode.max_rounds} rounds; only a closing reply can follow'
    )
  state = next_state(episode.state, answer)
  turn = Turn(
      reply=reply,
      simulator=answer.reply,
      reflection=answer.reflection,
      anger=state.anger,
      trust=state.trust,
      anger_delta=state.anger - episode.state.anger,
      trust_delta=state.trust - episode.state.trust,
  )
  turns = episode.turns + (turn,)
  ended_by = None
  if answer.stop:
    ended_by = 'simulator_stop'
  elif len(turns) >= episode.max_rounds and not episode.closing_reply:
    ended_by = 'max_rounds'
  return dataclasses.replace(
      episode,
      state=state,
      turns=turns,
      ended_by=ended_by,
      stop_reason=answer.stop_reason if answer.stop else '',
  )


def awaits_closing(episode: Episode) -> bool:
  """Whether all that is missing is the policy's closing reply, which no answer follows."""
  return episode.ended_by is None and len(episode.turns) >= episode.max_rounds


def close(episode: Episode, reply: Reply) -> Episode:
  """End a talk with its closing reply; the state stays as the last round left it.

  Raises:
    ValueError: if the talk does not await one.
  """
  if not awaits_closing(episode):
    raise ValueError(
        f'episode of scenario {episode.scenario.id!r} awaits no closing reply '
        f'({len(episode.turns)} of {episode.max_rounds} rounds, ended_by={episode.ended_by!r})'
    )
  return dataclasses.replace(episode, closing=reply, ended_by='max_rounds')


def fail(episode: Episode, ended_by: str, error: str) -> Episode:
  """End a talk by a failure; the state stays as it was and there is no score."""
  _check_open(episode)
  if ended_by not in FAILED:
    raise ValueError(f'ended_by={ended_by!r} must be one of {", ".join(FAILED)}')
  return dataclasses.replace(episode, ended_by=ended_by, error=error)


def _check_open(episode: Episode) -> None:
  if episode.ended_by is not None:
    assert episode.ended_by in ENDED_BY
    raise ValueError(
        f'episode of scenario {episode.scenario.id!r} has ended ({episode.ended_by}); '
        'only an open one can go on'
    )
