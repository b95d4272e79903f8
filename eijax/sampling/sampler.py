"""Jitted sampling: prefill and decode over a fixed number of cache slots.

Every shape is declared up front, so that nothing compiles after `warm_up`. A slot
remembers the tokens it holds; a talk that comes back to its slot with a longer
prompt pays for the new tokens only. The log-prob convention stands in samples.py.

Axes: B slots, C chunk tokens, R response tokens, D model, V vocabulary.
"""

from collections.abc import Sequence
from concurrent.futures import Future
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from eijax.policy.decoder import Decoder, init_cache
from eijax.sampling.choice import allowed_mask, choose_tokens
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.sampling.decoding import DecodeRows, decode
from eijax.sampling.placement import check_slots, placement
from eijax.sampling.samples import Sample, SampleRequest, as_request, common_prefix


@dataclasses.dataclass
class _Slot:
  """What one row of the cache holds."""

  key: str | None = None
  ids: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int32))


class BatchSampler:
  """Samples responses in batches of `shapes.num_slots` rows.

  Owner of the cache on the devices. `set_params` starts a policy version; nothing
  that an earlier version computed is used after it.
  """

  def __init__(
      self, decoder: Decoder, mesh: Mesh, shapes: SamplerShapes, sampling: SamplingConfig, *,
      stop_ids: Sequence[int], sampleable_ids: Sequence[int],
  ):
    check_slots(shapes, mesh)
    self._decoder, self._mesh, self._shapes, self._sampling = decoder, mesh, shapes, sampling
    self._stop_ids = np.asarray(stop_ids, np.int32)
    self._allowed = allowed_mask(decoder.config.vocab_size, sampleable_ids)
    self._placement = place = placement(decoder.config, mesh, shapes.num_slots)
    self._params: Any = None
    self._cache: Any = None
    self._slots = [_Slot() for _ in range(shapes.num_slots)]
    make_cache = functools.partial(init_cache, decoder.config, shapes.num_slots, shapes.max_tokens)
    self._make_cache = jax.jit(make_cache, out_shardings=place.cache)
    # Outputs that come back as inputs are placed alike, or the next call would compile again.
    self._prefill = jax.jit(
        self._prefill_fn, donate_argnames=('cache',), static_argnames=('span',),
        out_shardings=(place.rows, place.cache))
    self._decode = jax.jit(
        self._decode_fn, donate_argnames=('cache',), static_argnames=('span',),
        out_shardings=(None, None, None, place.cache))

  @property
  def max_prompt_tokens(self) -> int:
    """Longest prompt that leaves room for a full response."""
    return self._shapes.max_tokens - self._sampling.max_new_tokens

  @property
  def num_compilations(self) -> int:
    """Programs compiled so far, for tests and logs."""
    return self._prefill._cache_size() + self._decode._cache_size()  # pylint: disable=protected-access

  def set_params(self, params: Any) -> None:
    """Sample from these params from now on (`Decoder` params, unboxed)."""
    self._params = params
    self._slots = [_Slot() for _ in self._slots]

  def release(self) -> None:
    """Free the cache's memory, for a phase that does not sample, and let go of the params."""
    self._params = self._cache = None
    self._slots = [_Slot() for _ in self._slots]

  def warm_up(self, params: Any) -> None:
    """Compile every declared shape."""
    self.set_params(params)
    b = self._shapes.num_slots
    rows = np.zeros(b, np.int32)
    for span in self._shapes.spans:
      for chunk in self._shapes.chunks:
        hidden = self._run_prefill(self._new_hidden(), np.zeros((b, chunk), np.int32), rows, rows, span)
      self._run_decode(hidden, rows, rows, np.zeros(b, bool), span)
    self.release()

  def lower_decode(self, params: Any, span: int) -> tuple[jax.stages.Lowered, Any]:
    """The decode program from shapes alone, to be compiled for devices that are not there.

    Args:
      params: ShapeDtypeStructs with their placements.
    Returns:
      (the program, the cache's ShapeDtypeStructs).
    """
    hidden, rows, cache = self._shapes_of_state()
    return self._decode.lower(params, hidden, rows(np.int32), rows(np.int32), rows(np.bool_), cache=cache, span=span), cache

  def lower_prefill(self, params: Any, span: int, chunk: int) -> tuple[jax.stages.Lowered, Any]:
    """The same of the program that appends `chunk` tokens to every row."""
    hidden, rows, cache = self._shapes_of_state()
    return self._prefill.lower(
        params, hidden, rows(np.int32, chunk), rows(np.int32), rows(np.int32), cache=cache, span=span), cache

  def _shapes_of_state(self) -> tuple[Any, Any, Any]:
    cfg, b, place = self._decoder.config, self._shapes.num_slots, self._placement
    rows = lambda dtype, *rest: jax.ShapeDtypeStruct((b, *rest), dtype, sharding=place.rows)
    cache = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place.cache), jax.eval_shape(self._make_cache))
    return rows(jnp.dtype(cfg.compute_dtype), cfg.hidden_dim), rows, cache

  def submit(self, requests: Sequence[SampleRequest | tuple[Sequence[int], int, str]]) -> list[Future]:
    """Sample one response to each request; futures of `Sample`, done on return.

    A request may be a plain (prompt ids, seed, slot key), for callers outside the numerical rooms.

    Raises:
      UsageError: a prompt is empty, too long, or holds ids outside the vocabulary.
    """
    requests = [self._request(request) for request in requests]
    futures = [Future() for _ in requests]
    waiting = list(range(len(requests)))
    while waiting:
      batch = self._assign(requests, waiting)
      for index, sample in zip(batch.values(), self._sample({row: requests[i] for row, i in batch.items()})):
        futures[index].set_result(sample)
      taken = set(batch.values())
      waiting = [i for i in waiting if i not in taken]
    return futures

  def _request(self, request: SampleRequest | tuple[Sequence[int], int, str]) -> SampleRequest:
    return as_request(
        request, vocab_size=self._decoder.config.vocab_size, max_prompt_tokens=self.max_prompt_tokens,
        why=f'max_tokens={self._shapes.max_tokens} less max_new_tokens={self._sampling.max_new_tokens}')

  def _assign(self, requests: Sequence[SampleRequest], waiting: Sequence[int]) -> dict[int, int]:
    """Rows for as many waiting requests as there are slots: row -> request index.

    A request keeps the slot of its key; others take empty slots first, then those
    whose talk is not waiting.
    """
    chosen, keys, later = [], set(), []
    for i in waiting:  # Two requests with one key must not run at once.
      (later if requests[i].slot_key in keys or len(chosen) == len(self._slots) else chosen).append(i)
      keys.add(requests[i].slot_key)
    home = {slot.key: row for row, slot in enumerate(self._slots) if slot.key is not None}
    rows = {home[requests[i].slot_key]: i for i in chosen if requests[i].slot_key in home}
    free = sorted((row for row in range(len(self._slots)) if row not in rows),
                  key=lambda row: (self._slots[row].key is not None, row))
    rows.update(zip(free, (i for i in chosen if requests[i].slot_key not in home)))
    return dict(sorted(rows.items()))

  def _sample(self, batch: dict[int, SampleRequest]) -> list[Sample]:
    """Prefill what the slots lack, decode, and read the result, in order of rows."""
    b = self._shapes.num_slots
    # A row without a request only appends junk after what it holds, for its next prompt to overwrite.
    held = np.array([len(slot.ids) for slot in self._slots], np.int32)
    lengths = held.copy()
    for row, request in batch.items():
      slot = self._slots[row]
      # The last prompt token is always run: its hidden state starts the response.
      held[row] = common_prefix(slot.ids, request.prompt_ids[:-1]) if slot.key == request.slot_key else 0
      lengths[row] = len(request.prompt_ids)
    longest = max(len(request.prompt_ids) for request in batch.values())
    span = self._shapes.span_for(longest + self._sampling.max_new_tokens)
    hidden, done = self._new_hidden(), held.copy()
    while np.any(done < lengths):
      chunk = self._shapes.chunk_for(int((lengths - done).max()))
      tokens, take = np.zeros((b, chunk), np.int32), np.minimum(lengths - done, chunk)
      for row, request in batch.items():
        tokens[row, :take[row]] = request.prompt_ids[done[row]:done[row] + take[row]]
      hidden = self._run_prefill(hidden, tokens, done, take, span)
      done = done + take
    active = np.zeros(b, bool)
    active[list(batch)] = True
    seeds = np.zeros(b, np.int32)
    for row, request in batch.items():
      seeds[row] = request.seed
    ids, log_probs, counts = jax.device_get(self._run_decode(hidden, lengths, seeds, active, span))
    samples = []
    for row, request in batch.items():
      response = ids[row, :counts[row]]
      self._slots[row] = _Slot(request.slot_key, np.concatenate([request.prompt_ids, response]).astype(np.int32))
      samples.append(Sample(
          prompt_ids=np.asarray(request.prompt_ids, np.int32), response_ids=response,
          behavior_log_probs=log_probs[row, :counts[row]], truncated=bool(response[-1] not in self._stop_ids)))
    return samples

  def _new_hidden(self) -> jax.Array:
    """float or bfloat16[B, D] zeros; also makes the cache if there is none."""
    cfg = self._decoder.config
    if self._cache is None:
      self._cache = self._make_cache()
    zeros = np.zeros((self._shapes.num_slots, cfg.hidden_dim), np.float32)
    return jax.device_put(zeros.astype(jnp.dtype(cfg.compute_dtype)), self._placement.rows)

  def _put(self, *arrays: np.ndarray) -> list[jax.Array]:
    return [jax.device_put(array, self._placement.rows) for array in arrays]

  def _run_prefill(self, hidden, tokens, start, take, span):
    hidden, self._cache = self._prefill(self._params, hidden, *self._put(tokens, start, take), cache=self._cache, span=span)
    return hidden

  def _run_decode(self, hidden, lengths, seeds, active, span):
    *result, self._cache = self._decode(
        self._params, hidden, *self._put(lengths, seeds, active), cache=self._cache, span=span)
    return result

  def _prefill_fn(self, params, hidden, tokens, start, take, *, cache, span):
    """Append a chunk to every row; rows that end in it get their last hidden state."""
    states, cache = self._decoder.apply({'params': params}, tokens, start, cache, span, method='extend')
    last = jnp.take_along_axis(states, jnp.maximum(take - 1, 0)[:, None, None], axis=1)[:, 0]
    return jnp.where((take > 0)[:, None], last, hidden), cache

  def _decode_fn(self, params, hidden, lengths, seeds, active, *, cache, span):
    """Sample until every active row has stopped or the limit is reached."""
    b, limit = hidden.shape[0], self._sampling.max_new_tokens
    rows = DecodeRows(
        lengths=lengths, counts=jnp.zeros(b, jnp.int32), limits=jnp.full(b, limit), seeds=seeds, is_open=active,
        stop_ids=jnp.tile(self._stop_ids, (b, 1)))
    ids, log_probs, counts, _, cache = decode(
        self._decoder, params, hidden, cache, rows,
        lambda logits, keys: choose_tokens(logits, keys, self._allowed, self._sampling), num_steps=limit, span=span)
    return ids, log_probs, counts, cache
