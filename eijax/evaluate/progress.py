"""What a user sees while talks are held and when they are over."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tqdm

from eijax.rewards.scores import outcome_score
from eijax.rollouts.ports import Rollout


class Progress:
  """A bar with the running score, failures, tokens and requests per second; silent where nobody watches.

  Args:
    total: talks of the whole evaluation.
    tokens: totals of each role's meter in this session.
  """

  def __init__(self, total: int, tokens: Callable[[], Mapping[str, Mapping[str, int]]]):
    self._total, self._tokens = total, tokens
    self._sum, self._num_scored, self._num_failed = 0.0, 0, 0
    self._start = time.monotonic()
    self._bar: tqdm.tqdm | None = None

  @property
  def num_done(self) -> int:
    return self._num_scored + self._num_failed

  def begin(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """Take over what an earlier session left."""
    for row in rows:
      self._count(row['score'])
    # disable=None: no bar in a pipe or a log file.
    self._bar = tqdm.tqdm(total=self._total, initial=self.num_done, desc='talks', unit='talk', disable=None, dynamic_ncols=True)

  def add(self, rollout: Rollout) -> None:
    score = outcome_score(rollout.episode)
    self._count(score and score.score)
    if self._bar is not None and not self._bar.disable:
      self._bar.set_postfix_str(self._shown(), refresh=False)
      self._bar.update()

  def _count(self, score: float | None) -> None:
    if score is None:
      self._num_failed += 1
    else:
      self._num_scored += 1
      self._sum += score

  def _shown(self) -> str:
    counts = self._tokens().values()
    tokens = sum(c['prompt_tokens'] + c['completion_tokens'] for c in counts)
    rate = sum(c['requests'] for c in counts) / max(time.monotonic() - self._start, 1e-3)
    mean = f'{100 * self._sum / self._num_scored:+.1f}' if self._num_scored else '-'
    return f'score {mean}, {self._num_failed} failed, {short(tokens)} tokens, {rate:.0f} requests/s'

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


def short(count: int) -> str:
  """12345 as 12.3k."""
  for size, unit in ((10**9, 'G'), (10**6, 'M'), (10**3, 'k')):
    if count >= size:
      return f'{count / size:.1f}{unit}'
  return str(count)


def summary_table(summary: Mapping[str, Any]) -> str:
  """The summary as lines of plain text."""

  def line(name: str, part: Mapping[str, Any]) -> str:
    if part['score'] is None:
      return f'{name:<9}      -                    0 talks'
    low, high = part['ci95']
    return f'{name:<9} {part["score"]:+6.1f}  [{low:+6.1f}, {high:+6.1f}]  {part["n"]} talks'

  lines = [f'model {summary["model"]}, simulator {summary["simulator"]}: mean score x100 with its 95 % interval']
  lines += [line(scene, part) for scene, part in summary['scenes'].items()]
  lines.append(line('overall', summary['overall']))
  endings = ', '.join(f'{name} {count}' for name, count in summary['ended_by'].items() if count)
  lines.append(f'{summary["n"]} talks, {summary["failed"]} failed; ended by: {endings or "-"}')
  for role, counts in summary['tokens'].items():
    bound = ' (an upper bound: the endpoint does not count)' if counts.get('unknown_usage') else ''
    lines.append(f'{role:<9} {counts["requests"]} requests, {counts["retries"]} retries, {short(counts["prompt_tokens"])} tokens in, '
                 f'{short(counts["completion_tokens"])} out{bound}')
  lines.append(f'{summary["seconds"]:.1f} s')
  return '\n'.join(lines)
