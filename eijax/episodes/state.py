"""The talk as data: emotion state, turns, episode. Source: arXiv 2606.15532, section 2."""

import dataclasses
import functools
import json

from eijax.scenarios.record import Scenario

ENDED_BY = ('simulator_stop', 'max_rounds', 'simulator_failed', 'model_failed')


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmotionState:
  """The simulated user's state; both integers in 0..100."""

  anger: int
  trust: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
  """What the policy said in one turn.

  raw: the decoded response as sampled. visible: after strip-think; '...' if empty.
  thought: the text inside think blocks. has_thought: a non-empty, closed think block was found.
  malformed: empty thought in a think block, empty visible reply, or broken think tags.
  truncated: the response met the token limit.
  """

  raw: str
  visible: str
  thought: str
  has_thought: bool
  malformed: bool
  truncated: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimulatorAnswer:
  """One parsed answer of the simulator, before clipping.

  Deltas are None where the answer gave absolute levels instead.
  reflection keeps the five private steps (text, or JSON object as given).
  """

  reply: str
  anger_delta: int | None
  trust_delta: int | None
  anger: int | None = None
  trust: int | None = None
  stop: bool = False
  stop_reason: str = ''
  reflection: object = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
  """One round: the policy's reply, the user's answer, the state after it.

  anger_delta / trust_delta are the realised changes (after both clips).
  """

  reply: Reply
  simulator: str
  reflection: object
  anger: int
  trust: int
  anger_delta: int
  trust_delta: int

  @functools.cached_property
  def reflection_text(self) -> str:
    """The reflection as text: JSON where it came as an object."""
    return self.reflection if isinstance(self.reflection, str) else json.dumps(self.reflection, ensure_ascii=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Episode:
  """A talk. ended_by is None while it is open; error says why it failed, if it did.

  closing_reply: whether a Charm talk that reaches max_rounds ends with one more reply of the
    policy, as in the authors' evaluation. The user never answers it, so it is never scored.
  closing: that reply, once it has been said.
  """

  scenario: Scenario
  max_rounds: int
  seed: int
  state: EmotionState
  turns: tuple[Turn, ...] = ()
  ended_by: str | None = None
  stop_reason: str = ''
  error: str | None = None
  closing_reply: bool = False
  closing: Reply | None = None
