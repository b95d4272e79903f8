"""What a rollout needs from its two sides, and what it hands back."""

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from typing import Protocol

from eijax.episodes.state import Episode, Reply
from eijax.scenarios.record import Scenario


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeJob:
  """One talk to hold. `key` is unique within a run and names the talk to the policy."""

  scenario: Scenario
  seed: int
  key: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReplyRequest:
  """The policy's turn in one talk.

  episode_key: of the job; with it a sampler can keep the talk's cache.
  seed: for this reply alone, so that samples do not depend on the batch.
  round: from 1.
  """

  episode_key: str
  messages: list[dict[str, str]]
  seed: int
  round: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyReply:
  """What the policy wrote.

  text: the decoded response, thoughts included.
  truncated: whether it met the token limit.
  sample: the policy's own record of the turn (token ids, log-probs); passed through.
  thought_opened: whether the prompt itself ended with an opening think tag.
  """

  text: str
  truncated: bool = False
  sample: object | None = None
  thought_opened: bool = False


class Policy(Protocol):
  """Writes replies; a future that raises ends its own talk only."""

  def submit(
      self, requests: Sequence[ReplyRequest]
  ) -> 'list[concurrent.futures.Future[PolicyReply]]':
    ...


class Simulator(Protocol):
  """Plays the user: futures of SimulatorAnswer; one that raises ends its own talk only."""

  def submit(self, episode: Episode, reply: Reply) -> concurrent.futures.Future:
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollout:
  """A talk that has ended, with the policy's record of each turn.

  samples: one a turn of `episode`; the record of a reply that the user never
    answered is left out.
  """

  job: EpisodeJob
  episode: Episode
  samples: tuple[object, ...]
