"""A continuous-batching sampler: requests come and go while the batch runs.

A request gets a slot as soon as one is free, its prompt is prefilled in chunks, and
all open slots decode together, several tokens a call. What a slot holds stays there:
a prompt that begins like it, in this slot or another, pays for its new tokens only.

A response depends on its prompt, seed and settings, not on its neighbours: token i is
drawn with a key of (seed, i), and no sum runs over rows. What can differ is the order
in which a sum is taken: with the prompt tokens that were in the cache already, and with
the span of a decode call, which the longest row decides. That changes last bits. The
log-prob convention stands in samples.py.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
import dataclasses
import threading
from typing import Any

from jax.sharding import Mesh
import numpy as np

from eijax.errors import EijaxError, UsageError
from eijax.policy.decoder import Decoder
from eijax.sampling.choice import RowChoice
from eijax.sampling.config import EngineConfig, SamplerShapes, SamplingConfig
from eijax.sampling.decoding import DecodeRows
from eijax.sampling.programs import EnginePrograms
from eijax.sampling.samples import EngineRequest, Sample, SampleRequest, as_request
from eijax.sampling.slots import Seat, SlotTable


class EngineClosedError(EijaxError):
  """The engine was closed before a response was finished."""


@dataclasses.dataclass(eq=False)
class _Job:
  """A request under way. limit: its last token, at the latest. seat: None while it waits."""

  request: SampleRequest
  sampling: SamplingConfig
  stop_ids: tuple[int, ...]
  limit: int
  future: Future
  on_tokens: Callable[[np.ndarray, np.ndarray], None] | None
  seat: Seat | None = None
  count: int = 0
  ids: list[np.ndarray] = dataclasses.field(default_factory=list)
  log_probs: list[np.ndarray] = dataclasses.field(default_factory=list)

  @property
  def prompt(self) -> np.ndarray:
    return self.request.prompt_ids


@dataclasses.dataclass(eq=False)
class _Barrier:
  """Work between the requests before it and those after it."""

  work: Callable[[], None]
  future: Future


@dataclasses.dataclass
class EngineStats:
  """Counts since the engine began. reused_tokens: prompt tokens that were in the cache already."""

  requests: int = 0
  prompt_tokens: int = 0
  reused_tokens: int = 0
  sampled_tokens: int = 0
  prefill_calls: int = 0
  decode_calls: int = 0


class SamplingEngine:
  """Samples responses to requests of any thread; fills the Sampler port of the rollouts.

  Its own thread alone touches the devices. `set_params`, `release` and `warm_up` take
  their place in the queue: what was submitted before them ends first, what comes after
  waits. Cancelling a future frees its slot after the decode call under way.
  """

  def __init__(
      self, decoder: Decoder, mesh: Mesh, shapes: SamplerShapes, sampling: SamplingConfig, *,
      stop_ids: Sequence[int], sampleable_ids: Sequence[int], config: EngineConfig = EngineConfig(),
  ):
    self._vocab_size, self._shapes, self._sampling, self._config = decoder.config.vocab_size, shapes, sampling, config
    self._stop_ids = tuple(int(i) for i in stop_ids)
    self._programs = EnginePrograms(decoder, mesh, shapes, config, sampleable_ids)
    self._table = SlotTable(shapes.num_slots, shapes.max_tokens)
    self._running: dict[int, _Job] = {}  # Row -> job. Of the engine's thread.
    self._waiting: deque[_Job | _Barrier] = deque()
    self._wake = threading.Condition()
    self._closed = False
    self.stats = EngineStats()
    self._thread = threading.Thread(target=self._run, name='sampling-engine', daemon=True)
    self._thread.start()

  # ---- For any thread ------------------------------------------------------------------------------

  @property
  def max_prompt_tokens(self) -> int:
    """Longest prompt that leaves room for a full response with the engine's settings."""
    return self._shapes.max_tokens - self._sampling.max_new_tokens

  @property
  def max_tokens(self) -> int:
    """The context: prompt and response together."""
    return self._shapes.max_tokens

  @property
  def num_compilations(self) -> int:
    """Programs compiled so far, for tests and logs."""
    return self._programs.num_compilations

  @property
  def num_running(self) -> int:
    return len(self._running)

  @property
  def num_waiting(self) -> int:
    return len(self._waiting)

  def set_params(self, params: Any) -> None:
    """Sample from these params from now on (`Decoder` params, unboxed)."""
    self._between(lambda: self._start_version(params))

  def release(self) -> None:
    """Free the cache's memory, for a phase that does not sample, and let go of the params."""
    self._between(lambda: self._start_version(None))

  def warm_up(self, params: Any) -> None:
    """Compile every declared shape; then without params, as after `release`."""

    def work():
      self._start_version(params)
      self._programs.warm_up()
      self._start_version(None)

    self._between(work)

  def submit(self, requests: Sequence[SampleRequest | tuple[Sequence[int], int, str]]) -> list[Future]:
    """Futures of `Sample`, one a request.

    A request may be a plain (prompt ids, seed, slot key); an EngineRequest has settings
    of its own. Slot keys are not needed: what a slot holds is found by its ids.

    Raises:
      UsageError: a prompt is empty, too long, or holds ids outside the vocabulary; too many stop ids.
      EngineClosedError: the engine is closed.
    """
    jobs = [self._job(request) for request in requests]
    self._enqueue(jobs)
    return [job.future for job in jobs]

  def close(self) -> None:
    """Stop after the device call under way; unfinished futures raise EngineClosedError."""
    with self._wake:
      self._closed = True
      self._wake.notify()
    if threading.current_thread() is not self._thread:
      self._thread.join()

  def __enter__(self) -> 'SamplingEngine':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()

  def _job(self, request: SampleRequest | tuple[Sequence[int], int, str]) -> _Job:
    own = request if isinstance(request, EngineRequest) else None
    sampling = own.sampling if own and own.sampling else self._sampling
    most, room = self._shapes.max_tokens, 1 if own else self._sampling.max_new_tokens
    request = as_request(
        request, vocab_size=self._vocab_size, max_prompt_tokens=most - room,
        why=f'max_tokens={most} less {room} for the response')
    stop_ids = self._stop_ids + (own.stop_ids if own else ())
    if len(stop_ids) > self._config.num_stop_ids:
      raise UsageError(f'stop_ids={stop_ids} must be at most {self._config.num_stop_ids} ids; give fewer')
    return _Job(
        request=request, sampling=sampling, stop_ids=stop_ids, future=Future(), on_tokens=own.on_tokens if own else None,
        limit=min(sampling.max_new_tokens, most - len(request.prompt_ids)))

  def _enqueue(self, items: Sequence[_Job | _Barrier]) -> None:
    with self._wake:
      if self._closed:
        raise EngineClosedError('the sampling engine is closed; make a new one')
      self._waiting.extend(items)
      self._wake.notify()

  def _between(self, work: Callable[[], None]) -> None:
    """Run work in the engine's thread, between two requests, and wait for it."""
    if threading.current_thread() is self._thread:
      raise ValueError("a callback of the engine's own thread cannot wait for the engine")
    barrier = _Barrier(work, Future())
    self._enqueue([barrier])
    barrier.future.result()

  # ---- The engine's thread -------------------------------------------------------------------------

  def _run(self) -> None:
    while self._wait_for_work():
      try:
        self._drop_cancelled()
        self._seat_waiting()
        self._prefill()
        self._decode()
      except Exception as error:  # pylint: disable=broad-exception-caught
        # The cache was donated to the call that failed. What waits may fare better with a new one.
        self._abandon(self._running.values(), EijaxError(f'the sampling engine failed: {type(error).__name__}: {error}'))
        self._programs.drop()
    closed = EngineClosedError('the sampling engine was closed before this response was finished')
    self._abandon([*self._running.values(), *self._waiting], closed)
    self._programs.drop()

  def _wait_for_work(self) -> bool:
    with self._wake:
      self._wake.wait_for(lambda: self._closed or self._waiting or self._running)
      return not self._closed

  def _start_version(self, params: Any) -> None:
    """Nothing that an earlier version computed is used after it."""
    self._programs.params = params
    self._table.clear()
    if params is None:
      self._programs.drop()

  def _abandon(self, items: Sequence[_Job | _Barrier], error: EijaxError) -> None:
    for item in list(items):
      if item.future.set_running_or_notify_cancel():
        item.future.set_exception(error)
    self._running.clear()
    self._table.clear()

  def _leave(self, job: _Job) -> None:
    del self._running[job.seat.row]
    self._table.free(job.seat.row)

  def _drop_cancelled(self) -> None:
    for job in list(self._running.values()):
      if job.future.cancelled():
        job.future.set_running_or_notify_cancel()  # Wakes concurrent.futures.wait.
        self._leave(job)

  def _seat_waiting(self) -> None:
    """Give free rows to those who wait, in order, up to the first barrier; run it once nothing is before it."""
    while True:
      with self._wake:
        barrier = self._seat_before_barrier()
        if barrier is None:
          return
        self._waiting.popleft()
      try:
        barrier.work()
        barrier.future.set_result(None)
      except Exception as error:  # pylint: disable=broad-exception-caught
        self._programs.drop()
        barrier.future.set_exception(error)

  def _seat_before_barrier(self) -> _Barrier | None:
    """Returns the barrier whose turn has come, which stands first in the queue."""
    later = []
    while self._waiting and len(self._running) < self._shapes.num_slots and not isinstance(self._waiting[0], _Barrier):
      job = self._waiting.popleft()
      if job.future.cancelled():
        job.future.set_running_or_notify_cancel()
        continue
      seat = self._table.seat(job.prompt, worth_waiting=self._shapes.chunks[0])
      if seat is None:
        later.append(job)
        continue
      job.seat = seat
      self._running[seat.row] = job
      self.stats.requests += 1
      self.stats.prompt_tokens += len(job.prompt)
      self.stats.reused_tokens += seat.reused
    self._waiting.extendleft(reversed(later))
    first = self._waiting[0] if self._waiting else None
    return first if isinstance(first, _Barrier) and not self._running else None

  def _prefill(self) -> None:
    """Append one chunk to every row whose prompt is not all there.

    Chunk and span are those that the row would get by itself, so that its sums do not
    depend on its neighbours; rows that have them in common share calls.
    """
    if self._running and self._programs.params is None:
      raise EijaxError('there are no params to sample from; call set_params first')
    groups: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    for row, job in self._running.items():
      start = max(int(self._table.held[row]), job.seat.reused)
      left = len(job.prompt) - start
      if left > 0:
        chunk = self._shapes.chunk_for(left)
        take = min(left, chunk)
        groups.setdefault((chunk, self._shapes.span_for(start + take)), []).append((row, start, take))
    width = self._programs.prefill_rows
    for (chunk, span), parts in groups.items():
      for first in range(0, len(parts), width):
        self._prefill_call(parts[first:first + width], chunk, span)
    self._table.unpin()

  def _prefill_call(self, parts: Sequence[tuple[int, int, int]], chunk: int, span: int) -> None:
    """Append to the rows of some (row, start, take)."""
    held = self._table.held
    rows, start, take = np.array(parts, np.int32).T
    tokens = np.zeros((len(parts), chunk), np.int32)
    for place, (row, begin, size) in enumerate(parts):
      tokens[place, :size] = self._running[row].prompt[begin:begin + size]
    # After its first chunk a row goes on from itself.
    source = np.array([row if held[row] else self._running[row].seat.source for row, _, _ in parts], np.int32)
    fill = np.arange(self._programs.prefill_rows) % len(parts)
    self._programs.prefill(rows[fill], source[fill], tokens[fill], start[fill], take[fill], span)
    held[rows] = start + take
    self.stats.prefill_calls += 1

  def _decode(self) -> None:
    """One decode call for the rows whose prompts are in the cache."""
    jobs = {row: job for row, job in self._running.items() if self._table.held[row] >= len(job.prompt)}
    if not jobs:
      return
    held = self._table.held.copy()
    steps = {row: min(self._config.decode_steps, job.limit - job.count) for row, job in jobs.items()}
    span = self._shapes.span_for(max(int(held[row]) + steps[row] for row in jobs))
    ids, log_probs, counts = self._programs.decode(*self._decode_inputs(jobs, held), span)
    self.stats.decode_calls += 1
    for row, job in jobs.items():
      self._take(job, ids[row, :counts[row]].copy(), log_probs[row, :counts[row]].copy())

  def _decode_inputs(self, jobs: dict[int, _Job], held: np.ndarray) -> tuple[DecodeRows, RowChoice]:
    b = self._shapes.num_slots
    rows = DecodeRows(
        lengths=held, counts=np.zeros(b, np.int32), limits=np.zeros(b, np.int32), seeds=np.zeros(b, np.int32),
        is_open=np.zeros(b, bool), stop_ids=np.full((b, self._config.num_stop_ids), -1, np.int32))
    choice = RowChoice(temperature=np.ones(b, np.float32), top_p=np.ones(b, np.float32), top_k=np.zeros(b, np.int32))
    for row, job in jobs.items():
      rows.counts[row], rows.limits[row], rows.seeds[row] = job.count, job.limit, job.request.seed
      rows.is_open[row] = True
      rows.stop_ids[row, :len(job.stop_ids)] = job.stop_ids
      sampling = job.sampling
      choice.temperature[row], choice.top_p[row], choice.top_k[row] = sampling.temperature, sampling.top_p, sampling.top_k
    return rows, choice

  def _take(self, job: _Job, ids: np.ndarray, log_probs: np.ndarray) -> None:
    """Keep and pass on new tokens of a job, and end it where they do."""
    self._table.append(job.seat.row, ids)
    self.stats.sampled_tokens += len(ids)
    job.count += len(ids)
    job.ids.append(ids)
    job.log_probs.append(log_probs)
    stopped = int(ids[-1]) in job.stop_ids
    try:
      if job.on_tokens is not None and not job.future.cancelled():
        job.on_tokens(ids, log_probs)
    except Exception as error:  # pylint: disable=broad-exception-caught
      self._leave(job)
      if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
      return
    if not stopped and job.count < job.limit:
      return
    self._leave(job)
    if job.future.set_running_or_notify_cancel():
      job.future.set_result(Sample(
          prompt_ids=np.asarray(job.prompt, np.int32), response_ids=np.concatenate(job.ids),
          behavior_log_probs=np.concatenate(job.log_probs), truncated=not stopped))
