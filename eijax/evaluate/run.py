"""One evaluation from its config to its summary."""

import contextlib
import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from eijax.chat.errors import BudgetSpent, NotRecorded, Unauthorized
from eijax.chat.recording import Exchanges, Recorder, Replayer
from eijax.chat.usage import UsageMeter
from eijax.errors import EijaxError
from eijax.evaluate import sides
from eijax.evaluate.config import EMBEDDED_CONCURRENCY, EvaluateConfig, ModelFacts, deciding
from eijax.evaluate.cost import RoleMeter
from eijax.evaluate.folder import EvaluationFolder, Sessions
from eijax.evaluate.progress import Progress, summary_table
from eijax.evaluation.results import MAX_FAILED_SHARE, too_many_failed
from eijax.evaluation.run import evaluate
from eijax.evaluation.store import RESULTS, SUMMARY, read_summary, set_failed_aside
from eijax.rollouts.ports import Rollout
from eijax.scenarios.load import load_split
from eijax.scenarios.selection import digest, select
from eijax.simulator.opening import open_simulator


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """What does not change a result. out: folder, None for one named after the model. record, replay: folders or None."""

  out: str | None = None
  resume: bool = True
  retry_failed: bool = False
  record: str | None = None
  replay: str | None = None


class Stopped(EijaxError):
  """The evaluation cannot go on now; what is done is kept."""


class Interrupted(BaseException):
  """A signal asked for the end. status: exit status of the command."""

  def __init__(self, message: str, status: int):
    super().__init__(message)
    self.status = status


def is_fatal(error: Exception) -> bool:
  """Whether every further talk would meet the same: better to stop than to fail them all."""
  return isinstance(error, (BudgetSpent, NotRecorded)) or getattr(error, 'kind', None) == Unauthorized.__name__


def default_folder(label: str, seed: int) -> str:
  return os.path.join('evaluations', f'{re.sub(r"[^A-Za-z0-9._@-]+", "-", label).strip("-")}-seed{seed}')


def run(config: EvaluateConfig, options: Options) -> dict[str, Any]:
  """Hold all talks, or those that are missing; returns the summary.

  Raises:
    UsageError: something that cannot be evaluated as given.
    EijaxError: a side cannot serve, the folder cannot be written, more than 5 % of the talks failed.
  """
  facts = sides.describe_model(config, is_replay=options.replay is not None)
  scenarios = select(load_split(config.scenarios, config.split), config.scenes, config.limit)
  played = {'num': len(scenarios), 'digest': digest(scenarios)}
  settings = deciding(config, model=facts.settings, scenarios=played)
  out = options.out or default_folder(facts.label, config.seed)
  in_flight, open_talks = requests_and_talks(config, facts)
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(EvaluationFolder(out, settings, resume=options.resume))
    if options.retry_failed and folder.resumed:
      print(f'{set_failed_aside(folder.path)} failed talks are held again', flush=True)
    total = len(scenarios) * config.samples
    finished = _finished(folder.path, total)
    if finished is not None:
      print(f'all {total} talks are in {folder.path} already', flush=True)
      return _conclude(finished, folder)
    exchanges = stack.enter_context(_exchanges(options))
    sessions = Sessions(folder.path)
    stack.callback(sessions.close)
    meters = _meters(config, facts, sessions)

    def tokens() -> dict[str, dict[str, int]]:
      return {role: meter.totals() for role, meter in meters.items()}

    simulator_settings = dataclasses.replace(config.simulator, concurrency=in_flight['simulator'])
    simulator = stack.enter_context(
        open_simulator(simulator_settings, config.seed, meter=meters['simulator'], exchanges=exchanges))
    policy, end_talk = stack.enter_context(sides.open_model(
        facts, config, scenarios, concurrency=in_flight['model'], meter=meters['model'], exchanges=exchanges))
    folder.claim()
    print(f'{total} talks of {facts.label} with {config.simulator.model}, {open_talks} at a time; results in {folder.path}', flush=True)
    progress = Progress(total, tokens)
    stack.callback(progress.close)

    def on_finish(rollout: Rollout) -> None:
      end_talk(rollout.job.key)
      progress.add(rollout)
      sessions.note(tokens())

    with _ending(folder.path / RESULTS, progress, total, sessions, tokens):
      summary = evaluate(
          scenarios, policy, simulator, folder.path, model_name=facts.label, simulator_name=config.simulator.model,
          max_rounds=config.max_rounds, thinking=facts.thinking, seed=config.seed, num_samples=config.samples,
          keep_thoughts=config.keep_thoughts, closing_reply=config.charm_closing_reply, lockstep=facts.lockstep,
          max_open=open_talks, is_fatal=is_fatal, on_start=progress.begin, on_finish=on_finish,
          notes=lambda: {
              'settings': settings, **sessions.totals(tokens()),
              'adaptations': {'model': getattr(policy, 'adaptations', {}), 'simulator': simulator.adaptations},
          })
      sessions.note(tokens(), now=True)
    return _conclude(summary, folder)


def requests_and_talks(config: EvaluateConfig, facts: ModelFacts) -> tuple[dict[str, int], int]:
  """(Requests in flight to each side, talks that are open) at a time.

  A talk waits for one side at a time: with as many talks as requests that both sides may get together, neither of two
  endpoints has a place free while there are talks to hold. One request at a time stands for one talk after another.
  """
  concurrency = config.concurrency or facts.concurrency
  embedded = min(concurrency, EMBEDDED_CONCURRENCY)
  in_flight = {
      'model': config.model_concurrency or concurrency,
      'simulator': config.simulator_concurrency or (embedded if config.simulator.embedded else concurrency),
  }
  both = sum(in_flight.values()) if facts.kind == 'endpoint' and concurrency > 1 else concurrency
  return in_flight, config.open_talks or both


def _finished(path: pathlib.Path, total: int) -> dict[str, Any] | None:
  """The summary of an evaluation that lacks no talk; it is the last thing that is written."""
  if not (path / SUMMARY).exists():
    return None
  summary = read_summary(path)
  return summary if summary.get('n') == total else None


def _conclude(summary: dict[str, Any], folder: EvaluationFolder) -> dict[str, Any]:
  """Show the summary; refuse one with too many failures."""
  print(summary_table(summary), flush=True)
  if too_many_failed(summary):
    raise EijaxError(
        f'failed={summary["failed"]} of n={summary["n"]} talks is more than {MAX_FAILED_SHARE:.0%}, so the means may mislead; '
        f'look at `error` in {folder.path / RESULTS}, mend the cause and start again with --retry_failed')
  return summary


def _meters(config: EvaluateConfig, facts: ModelFacts, sessions: Sessions) -> dict[str, UsageMeter]:
  """A meter for each role; those that cost something share the budget."""
  budget = None
  if config.max_cost_tokens:
    paid = [role for role, is_paid in (('model', facts.kind == 'endpoint'), ('simulator', not config.simulator.embedded)) if is_paid]
    past = sessions.totals({})['tokens']
    spent = sum(past.get(role, {}).get(name, 0) for role in paid for name in ('prompt_tokens', 'completion_tokens'))
    if spent >= config.max_cost_tokens:
      raise Stopped(f'max_cost_tokens={config.max_cost_tokens} must exceed the {spent} tokens that are spent already; raise it to go on')
    budget = UsageMeter(config.max_cost_tokens - spent)
  return {
      'model': RoleMeter(budget if facts.kind == 'endpoint' else None),
      'simulator': RoleMeter(None if config.simulator.embedded else budget),
  }


@contextlib.contextmanager
def _exchanges(options: Options) -> Iterator[Exchanges | None]:
  if options.record is not None:
    with Recorder(options.record) as recorder:
      yield recorder
  elif options.replay is not None:
    with Replayer(options.replay) as replayer:
      yield replayer
  else:
    yield None


@contextlib.contextmanager
def _ending(
    results: pathlib.Path, progress: Progress, total: int, sessions: Sessions, tokens: Callable[[], dict[str, dict[str, int]]]
) -> Iterator[None]:
  """Whatever ends the talks early: note the cost, and say how to go on."""
  try:
    yield
  except BaseException as error:
    progress.close()
    sessions.note(tokens(), now=True)
    # What is on disk counts: a signal may come between a row and the bar.
    num_kept = results.read_bytes().count(b'\n') if results.exists() else 0
    kept = f'{num_kept} of {total} talks are kept'
    if isinstance(error, BudgetSpent):
      raise Stopped(f'max_cost_tokens is spent; {kept}. Raise --max_cost_tokens and start the same command again to go on') from None
    if isinstance(error, Interrupted):
      raise Interrupted(f'interrupted; {kept}. Start the same command again to go on', error.status) from None
    if isinstance(error, Exception) and is_fatal(error):
      raise Stopped(f'{error}. {kept}; start the same command again to go on') from None
    raise
