"""Hold many talks at once between a policy and a simulator."""

import concurrent.futures
import dataclasses
import queue
from collections.abc import Callable, Sequence

from eijax.episodes import protocol
from eijax.episodes.state import Episode, Reply
from eijax.episodes.strip_think import strip_think
from eijax.episodes.views import policy_messages
from eijax.errors import EijaxError
from eijax.rollouts.ports import EpisodeJob, Policy, PolicyReply, ReplyRequest, Rollout, Simulator
from eijax.seeds import derive_seed


@dataclasses.dataclass
class _Talk:
  """One open talk. `reply` and `sample` belong to the turn under way."""

  job: EpisodeJob
  episode: Episode
  samples: list[object]
  reply: Reply | None = None
  sample: object | None = None

  @property
  def is_open(self) -> bool:
    return self.episode.ended_by is None

  def rollout(self) -> Rollout:
    return Rollout(job=self.job, episode=self.episode, samples=tuple(self.samples))


class _Runner:
  """The moves of a talk, shared by both schedules."""

  def __init__(self, policy, simulator, thinking, keep_thoughts, on_finish):
    self._policy = policy
    self._simulator = simulator
    self._thinking = thinking
    self._keep_thoughts = keep_thoughts
    self._on_finish = on_finish

  def ask_policy(self, talks: Sequence[_Talk]) -> list[concurrent.futures.Future]:
    requests = []
    for talk in talks:
      round_number = len(talk.episode.turns) + 1
      requests.append(ReplyRequest(
          episode_key=talk.job.key,
          messages=policy_messages(
              talk.episode, thinking=self._thinking, keep_thoughts=self._keep_thoughts
          ),
          seed=derive_seed('policy', talk.job.seed, round_number),
          round=round_number,
      ))
    futures = self._policy.submit(requests)
    if len(futures) != len(requests):
      raise ValueError(f'the policy returned {len(futures)} futures for {len(requests)} requests')
    return futures

  def ask_simulator(
      self, talk: _Talk, replied: concurrent.futures.Future
  ) -> concurrent.futures.Future | None:
    """Pass a reply on to the user; None where the policy failed and the talk has ended."""
    try:
      answer: PolicyReply = replied.result()
    except Exception as error:  # pylint: disable=broad-exception-caught
      self._end(talk, 'model_failed', error)
      return None
    talk.reply = strip_think(answer.text, answer.truncated, answer.thought_opened)
    talk.sample = answer.sample
    return self._simulator.submit(talk.episode, talk.reply)

  def take_answer(self, talk: _Talk, answered: concurrent.futures.Future) -> None:
    """Advance a talk by the user's answer."""
    try:
      answer = answered.result()
    except Exception as error:  # pylint: disable=broad-exception-caught
      self._end(talk, 'simulator_failed', error)
      return
    talk.episode = protocol.advance(talk.episode, talk.reply, answer)
    talk.samples.append(talk.sample)
    if not talk.is_open:
      self._finish(talk)

  def _end(self, talk: _Talk, ended_by: str, error: Exception) -> None:
    # Our own errors speak for themselves; the type of any other is half of its message.
    words = str(error) if isinstance(error, EijaxError) else f'{type(error).__name__}: {error}'
    talk.episode = protocol.fail(talk.episode, ended_by, words)
    self._finish(talk)

  def _finish(self, talk: _Talk) -> None:
    if self._on_finish is not None:
      self._on_finish(talk.rollout())


def run_rollouts(
    jobs: Sequence[EpisodeJob],
    policy: Policy,
    simulator: Simulator,
    *,
    max_rounds: int,
    thinking: bool,
    keep_thoughts: bool = False,
    on_finish: Callable[[Rollout], None] | None = None,
    lockstep: bool = True,
) -> list[Rollout]:
  """Hold one talk per job.

  A failure of either side ends its own talk only, typed in `episode.ended_by`.

  Args:
    jobs: with keys that are all different.
    max_rounds: rounds after which a talk ends (paper: 8).
    thinking: whether the policy is told to think first.
    keep_thoughts: whether the policy sees its own earlier thoughts.
    on_finish: called in this thread as each talk ends.
    lockstep: ask for the replies of all open talks as one batch, then for all answers
      at once. Otherwise each talk goes on as soon as its own answer is there.
  Returns:
    rollouts in the order of the jobs, whatever the order of the ends.
  """
  keys = [job.key for job in jobs]
  if len(set(keys)) < len(keys):
    repeated = next(key for key in keys if keys.count(key) > 1)
    raise ValueError(f'key={repeated!r} stands twice; every job needs a key of its own')
  talks = [
      _Talk(job, protocol.start(job.scenario, max_rounds=max_rounds, seed=job.seed), [])
      for job in jobs
  ]
  runner = _Runner(policy, simulator, thinking, keep_thoughts, on_finish)
  if lockstep:
    _run_lockstep(talks, runner)
  else:
    _run_free(talks, runner)
  return [talk.rollout() for talk in talks]


def _run_lockstep(talks: Sequence[_Talk], runner: _Runner) -> None:
  while open_talks := [talk for talk in talks if talk.is_open]:
    replied = runner.ask_policy(open_talks)
    answered = [runner.ask_simulator(talk, future) for talk, future in zip(open_talks, replied)]
    for talk, future in zip(open_talks, answered):
      if future is not None:
        runner.take_answer(talk, future)


def _run_free(talks: Sequence[_Talk], runner: _Runner) -> None:
  """One thread moves all talks; futures report to it through a queue."""
  events: queue.SimpleQueue = queue.SimpleQueue()

  def report(kind: str, talk: _Talk, future: concurrent.futures.Future) -> None:
    future.add_done_callback(lambda done: events.put((kind, talk, done)))

  def ask(ready: Sequence[_Talk]) -> None:
    for talk, future in zip(ready, runner.ask_policy(ready)):
      report('replied', talk, future)

  num_open = len(talks)
  if talks:
    ask(talks)
  while num_open:
    batch = [events.get()]
    while not events.empty():  # What is ready together goes to the policy together.
      batch.append(events.get())
    ready = []
    for kind, talk, future in batch:
      if kind == 'replied':
        answered = runner.ask_simulator(talk, future)
        if answered is not None:
          report('answered', talk, answered)
      else:
        runner.take_answer(talk, future)
        if talk.is_open:
          ready.append(talk)
      num_open -= not talk.is_open
    if ready:
      ask(ready)
