"""Ask a model for one JSON object, until it can be used, within a budget of tokens."""

import concurrent.futures
import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eijax.chat.client import ChatClient, ChatResult
from eijax.chat.errors import BadRequest, ContextTooLong, Refused
from eijax.chat.tolerant_json import find_objects, normalise_keys
from eijax.chat.usage import messages_bound, token_bound
from eijax.errors import EijaxError
from eijax.generation.journal import Journal
from eijax.seeds import derive_seed

Messages = list[dict[str, str]]
_CORRECTION = {
  'en': 'An earlier answer to this could not be used: {reason}. Answer with one JSON object that does not have this fault.',
  'zh': '之前对这个问题的回答无法使用：{reason}。请只输出一个没有这个毛病的 JSON 对象。',
}
_MAX_REASON_CHARS = 800


class Fault(ValueError):
  """An answer that cannot be used; the text tells the model why."""


class Rejected(Exception):
  """An item that is given up; the text is the reason that is kept."""


class BudgetSpent(EijaxError):
  """The tokens that the user allowed are spent."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskingConfig:
  """max_tokens: of one answer. max_attempts: answers of one stage. max_cost_tokens: in and out; None: no limit."""

  max_tokens: int = 8192
  max_attempts: int = 4
  max_cost_tokens: int | None = None


class Asker:
  """Asks stages of items, and keeps each answer in the journal before it returns it. Thread-safe.

  Attributes:
    num_retries: requests that were sent again after a failure of the network or the server.
  """

  def __init__(self, chat: ChatClient, journal: Journal, config: AskingConfig, seed: int):
    self._chat, self.journal, self._config, self._seed = chat, journal, config, seed
    self._changed = threading.Condition()
    self._reserved = 0
    self.num_retries = 0

  def ask(
    self, item: str, stage: str, messages: Messages, check: Callable[[dict[str, Any]], Any], *,
    temperature: float, language: str,
  ) -> Any:  # fmt: skip
    """Return the value that `check` makes of the answer; from the journal if the stage is finished.

    An answer that cannot be used is asked for again, with the reason added and another seed.

    Args:
      check: from the object that the model answered (keys in lower case) to a JSON value; raises Fault.
    Raises:
      Rejected: no usable answer, or the endpoint refuses this very request.
      BudgetSpent: another call might exceed the limit.
      ChatError: the endpoint does not work.
    """
    known = self.journal.value(item, stage)
    if known is not None:
      return known
    for attempt in range(len(self.journal.faults(item, stage)), self._config.max_attempts):
      faults = self.journal.faults(item, stage)
      request = list(messages)
      if faults:
        reason = faults[-1][:_MAX_REASON_CHARS]
        last = request[-1]
        request[-1] = {**last, 'content': f'{last["content"]}\n\n{_CORRECTION[language].format(reason=reason)}'}
      seed = derive_seed('generation', self._seed, item, stage, attempt)
      with self._reserved_for(messages_bound(request) + self._config.max_tokens):
        result = self._complete(request, temperature, seed)
        tokens = _tokens(result.usage, request, result.text + result.reasoning)
        try:
          value = _read(result.text, result.finish_reason, check)
        except Fault as fault:
          self.journal.fault(item, stage, str(fault), tokens)
          continue
        self.journal.finish(item, stage, value, tokens)
        return value
    faults = self.journal.faults(item, stage)
    raise Rejected(f'{stage}: no usable answer, {len(faults)} tried; the last: {faults[-1] if faults else "none"}')

  def _complete(self, messages: Messages, temperature: float, seed: int) -> ChatResult:
    try:
      result = self._chat.complete(messages, temperature=temperature, max_tokens=self._config.max_tokens, seed=seed)
    except (BadRequest, ContextTooLong, Refused) as error:
      # Content filters refuse a text and not the run; a wrong model name was found by the check before.
      raise Rejected(f'the endpoint refused the request: {error}') from None
    with self._changed:
      self.num_retries += result.retries
    return result

  @contextlib.contextmanager
  def _reserved_for(self, need: int) -> Iterator[None]:
    """Hold `need` tokens of the budget, until what was really spent stands in the journal."""
    limit = self._config.max_cost_tokens
    with self._changed:
      # What is in flight reserves its upper bound, and mostly gives a part of it back.
      while limit is not None and self.journal.tokens + self._reserved + need > limit:
        if not self._reserved:
          raise BudgetSpent(
            f'--max_cost_tokens={limit}: {self.journal.tokens} tokens are spent, and another call may take {need}; '
            'raise it and run the same command again'
          )
        self._changed.wait()
      self._reserved += need
    try:
      yield
    finally:
      with self._changed:
        self._reserved -= need
        self._changed.notify_all()


def _read(text: str, finish_reason: str, check: Callable[[dict[str, Any]], Any]) -> Any:
  found = [item for item in find_objects(text) if not item.in_thought]
  if not found:
    raise Fault('it holds no JSON object' if text.strip() else 'it is empty')
  first: Fault | None = None
  for item in reversed(found):
    try:
      if item.is_cut:
        is_long = finish_reason == 'length'
        raise Fault('it was cut off by the token limit; write less' if is_long else 'its JSON object is not closed')
      return check(normalise_keys(item.value))
    except Fault as fault:
      first = first or fault
  raise first


def _tokens(usage: Mapping[str, Any], messages: Messages, answer: str) -> tuple[int, int]:
  """(in, out) as the endpoint counts; our upper bounds where it does not."""
  counts = []
  for name, bound in (('prompt_tokens', messages_bound(messages)), ('completion_tokens', token_bound(answer))):
    value = usage.get(name) if isinstance(usage, Mapping) else None
    counts.append(value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else bound)
  return counts[0], counts[1]


def run_all(
  supply: Any, process: Callable[[Any], bool], *, concurrency: int, on_end: Callable[[], None], stop: Callable[[], None],
) -> None:  # fmt: skip
  """Work on items in `concurrency` threads until the supply has no more.

  Args:
    supply: `next()` gives an item or None, `done(item, accepted)` hears of its end; both are
      called in this thread only.
    process: works on one item in a thread of the pool; returns whether it was accepted.
    on_end: called in this thread after every item.
    stop: called once when an item fails with more than a rejection; must let the others fail soon.
  Raises:
    the first failure of `process`, after all threads have come home.
  """
  with concurrent.futures.ThreadPoolExecutor(concurrency, thread_name_prefix='items') as pool:
    running: dict[concurrent.futures.Future, Any] = {}
    spent: BudgetSpent | None = None
    try:
      while True:
        while spent is None and len(running) < concurrency and (item := supply.next()) is not None:
          running[pool.submit(process, item)] = item
        if not running:
          break
        ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in ended:
          item = running.pop(future)
          try:
            supply.done(item, future.result())
            on_end()
          except BudgetSpent as error:
            spent = error  # The others may still finish within the budget.
    except BaseException:
      stop()
      for future in running:
        future.cancel()
      raise
  if spent is not None:
    raise spent
