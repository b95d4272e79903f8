"""Hold many talks at once between a policy and a simulator."""

import concurrent.futures
import dataclasses
import itertools
import queue
from collections.abc import Callable, Iterable, Sequence

from eijax.episodes import protocol
from eijax.episodes.state import Episode, Reply
from eijax.episodes.strip_think import strip_think
from eijax.episodes.views import policy_messages
from eijax.errors import EijaxError
from eijax.rollouts.ports import EpisodeJob, Policy, PolicyReply, ReplyRequest, Rollout, Simulator
from eijax.seeds import derive_seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class TalkRules:
  """How talks are held.

  max_rounds: rounds after which a talk ends (paper: 8).
  thinking: whether the policy is told to think first.
  keep_thoughts: whether the policy sees its own earlier thoughts.
  closing_reply: whether a full-length Charm talk ends with a reply that is never scored.
  """

  max_rounds: int
  thinking: bool
  keep_thoughts: bool = False
  closing_reply: bool = False


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

  def __init__(self, policy, simulator, rules, on_finish, is_fatal):
    self._policy = policy
    self._simulator = simulator
    self._rules = rules
    self._on_finish = on_finish
    self._is_fatal = is_fatal
    self._keys: set[str] = set()

  def open(self, job: EpisodeJob) -> _Talk:
    if job.key in self._keys:
      raise ValueError(f'key={job.key!r} stands twice; every job needs a key of its own')
    self._keys.add(job.key)
    episode = protocol.start(
        job.scenario, max_rounds=self._rules.max_rounds, seed=job.seed, closing_reply=self._rules.closing_reply
    )
    return _Talk(job, episode, [])

  def ask_policy(self, talks: Sequence[_Talk]) -> list[concurrent.futures.Future]:
    requests = []
    for talk in talks:
      round_number = len(talk.episode.turns) + 1
      requests.append(ReplyRequest(
          episode_key=talk.job.key,
          messages=policy_messages(
              talk.episode, thinking=self._rules.thinking, keep_thoughts=self._rules.keep_thoughts
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
    """Pass a reply on to the user; None where the talk has ended: the policy failed, or closed it."""
    try:
      answer: PolicyReply = replied.result()
    except Exception as error:  # pylint: disable=broad-exception-caught
      self._fail(talk, 'model_failed', error)
      return None
    talk.reply = strip_think(answer.text, answer.truncated, answer.thought_opened)
    talk.sample = answer.sample
    if protocol.awaits_closing(talk.episode):
      talk.episode = protocol.close(talk.episode, talk.reply)
      self._finish(talk)
      return None
    return self._simulator.submit(talk.episode, talk.reply)

  def take_answer(self, talk: _Talk, answered: concurrent.futures.Future) -> None:
    """Advance a talk by the user's answer."""
    try:
      answer = answered.result()
    except Exception as error:  # pylint: disable=broad-exception-caught
      self._fail(talk, 'simulator_failed', error)
      return
    talk.episode = protocol.advance(talk.episode, talk.reply, answer)
    talk.samples.append(talk.sample)
    if not talk.is_open:
      self._finish(talk)

  def _fail(self, talk: _Talk, ended_by: str, error: Exception) -> None:
    if self._is_fatal(error):
      raise error
    # Our own errors speak for themselves; the type of any other is half of its message.
    words = str(error) if isinstance(error, EijaxError) else f'{type(error).__name__}: {error}'
    talk.episode = protocol.fail(talk.episode, ended_by, words)
    self._finish(talk)

  def _finish(self, talk: _Talk) -> None:
    if self._on_finish is not None:
      self._on_finish(talk.rollout())


def hold_talks(
    jobs: Iterable[EpisodeJob],
    policy: Policy,
    simulator: Simulator,
    rules: TalkRules,
    *,
    on_finish: Callable[[Rollout], None] | None = None,
    max_open: int | None = None,
    lockstep: bool = True,
    is_fatal: Callable[[Exception], bool] = lambda error: False,
) -> None:
  """Hold one talk per job, and keep none of them.

  A failure of either side ends its own talk only, typed in `episode.ended_by`.

  Args:
    jobs: with keys that are all different; drawn from as talks open.
    on_finish: called in this thread as each talk ends, with all that is known of it.
    max_open: most talks that are open at a time; a new one opens as soon as one ends. None
      opens all at once.
    lockstep: ask for the replies of all open talks as one batch, then for all answers
      at once. Otherwise each talk goes on as soon as its own answer is there.
    is_fatal: says of an error of either side whether it ends everything: it is raised here,
      and the talks that are open then are not finished.
  """
  if max_open is not None and max_open < 1:
    raise ValueError(f'max_open={max_open} must be at least 1')
  runner = _Runner(policy, simulator, rules, on_finish, is_fatal)
  talks = map(runner.open, jobs)
  (_run_lockstep if lockstep else _run_free)(talks, runner, max_open)


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
  """Hold one talk per job, all at once; see `hold_talks`.

  Returns:
    rollouts in the order of the jobs, whatever the order of the ends.
  """
  finished: dict[str, Rollout] = {}

  def keep(rollout: Rollout) -> None:
    finished[rollout.job.key] = rollout
    if on_finish is not None:
      on_finish(rollout)

  rules = TalkRules(max_rounds=max_rounds, thinking=thinking, keep_thoughts=keep_thoughts)
  hold_talks(jobs, policy, simulator, rules, on_finish=keep, lockstep=lockstep)
  return [finished[job.key] for job in jobs]


def _run_lockstep(talks: Iterable[_Talk], runner: _Runner, max_open: int | None) -> None:
  open_talks = list(itertools.islice(talks, max_open))
  while open_talks:
    replied = runner.ask_policy(open_talks)
    answered = [runner.ask_simulator(talk, future) for talk, future in zip(open_talks, replied)]
    for talk, future in zip(open_talks, answered):
      if future is not None:
        runner.take_answer(talk, future)
    open_talks = [talk for talk in open_talks if talk.is_open]
    if max_open is not None:
      open_talks += itertools.islice(talks, max_open - len(open_talks))


def _run_free(talks: Iterable[_Talk], runner: _Runner, max_open: int | None) -> None:
  """One thread moves all talks; futures report to it through a queue."""
  events: queue.SimpleQueue = queue.SimpleQueue()

  def report(kind: str, talk: _Talk, future: concurrent.futures.Future) -> None:
    future.add_done_callback(lambda done: events.put((kind, talk, done)))

  def ask(ready: Sequence[_Talk]) -> None:
    for talk, future in zip(ready, runner.ask_policy(ready)):
      report('replied', talk, future)

  ready = list(itertools.islice(talks, max_open))
  num_open = len(ready)
  while num_open:
    if ready:
      ask(ready)
    batch, ready = [events.get()], []
    while not events.empty():  # What is ready together goes to the policy together.
      batch.append(events.get())
    for kind, talk, future in batch:
      if kind == 'replied':
        answered = runner.ask_simulator(talk, future)
        if answered is not None:
          report('answered', talk, answered)
      else:
        runner.take_answer(talk, future)
        if talk.is_open:
          ready.append(talk)
      if not talk.is_open:
        num_open -= 1
        opened = list(itertools.islice(talks, 1))
        num_open += len(opened)
        ready += opened
