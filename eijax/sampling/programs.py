"""The engine's two jitted programs and the cache that is donated through them.

Prefill appends a chunk to a few rows; decode samples several tokens in every open
row. Every shape is declared, so that nothing compiles after `warm_up`.

Axes: B slots, P rows of a prefill call, C chunk tokens, S cells, D model, V vocabulary.
"""

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
import numpy as np

from eijax.policy.decoder import Decoder, KVCache, init_cache
from eijax.sampling.choice import RowChoice, allowed_mask, choose_by_row
from eijax.sampling.config import EngineConfig, SamplerShapes
from eijax.sampling.decoding import DecodeRows, decode
from eijax.sampling.placement import check_slots, placement


class EnginePrograms:
  """Owner of the cache and of the last hidden state of every row. For one thread.

  Attributes:
    params: `Decoder` params, unboxed; None until there are any.
  """

  def __init__(
      self, decoder: Decoder, mesh: Mesh, shapes: SamplerShapes, config: EngineConfig, sampleable_ids: Sequence[int],
  ):
    check_slots(shapes, mesh)
    self._decoder, self._shapes, self._config = decoder, shapes, config
    self.params: Any = None
    self._state: Any = None  # (hidden, cache), or None where there is no cache.
    self._allowed = allowed_mask(decoder.config.vocab_size, sampleable_ids)
    self._place = place = placement(decoder.config, mesh, shapes.num_slots)
    self.prefill_rows = min(config.prefill_rows, shapes.num_slots)
    # Outputs that come back as inputs are placed alike, or the next call would compile again.
    self._make_state = jax.jit(self._empty, out_shardings=(place.rows, place.cache))
    self._prefill = jax.jit(
        self._prefill_fn, donate_argnames=('hidden', 'cache'), static_argnames=('span',),
        out_shardings=(place.rows, place.cache))
    self._decode = jax.jit(
        self._decode_fn, donate_argnames=('hidden', 'cache'), static_argnames=('span',),
        out_shardings=(place.whole, place.whole, place.whole, place.rows, place.cache))

  @property
  def num_compilations(self) -> int:
    """Programs compiled so far."""
    return self._prefill._cache_size() + self._decode._cache_size()  # pylint: disable=protected-access

  def drop(self) -> None:
    """Free the cache's memory; the next call makes an empty one."""
    self._state = None

  def warm_up(self) -> None:
    """Compile every declared shape, with the present params."""
    b, p = self._shapes.num_slots, self.prefill_rows
    for span in self._shapes.spans:
      for chunk in self._shapes.chunks:
        row = np.arange(p, dtype=np.int32)
        self.prefill(row, row, np.zeros((p, chunk), np.int32), np.zeros(p, np.int32), np.ones(p, np.int32), span)
      zeros = np.zeros(b, np.int32)
      rows = DecodeRows(lengths=zeros, counts=zeros, limits=zeros, seeds=zeros, is_open=np.zeros(b, bool),
                        stop_ids=np.zeros((b, self._config.num_stop_ids), np.int32))
      choice = RowChoice(temperature=np.ones(b, np.float32), top_p=np.ones(b, np.float32), top_k=zeros)
      self.decode(rows, choice, span)
    self.drop()

  def prefill(self, row, source, tokens, start, take, span: int) -> None:
    """Append a chunk to some rows, without waiting for it.

    Args:
      row, source: int32[P]. A row begins as a copy of its source's cells. Calls that
        need fewer than P rows repeat one of them in every array.
      tokens: int32[P, C]; row p takes the first take[p] >= 1 of tokens[p], from cell start[p] on.
      start, take: int32[P].
      span: cells that are copied and read; start + take stays within it.
    """
    arrays = jax.device_put((row, source, tokens, start, take), self._place.whole)
    self._state = self._prefill(self.params, *self._taken(), *arrays, span=span)

  def decode(self, rows: DecodeRows, choice: RowChoice, span: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sample up to decode_steps tokens in each open row, and wait for them.

    Returns:
      (int32[B, R] ids, float32[B, R] log-probs, int32[B] how many of them are the row's).
    """
    *result, hidden, cache = self._decode(
        self.params, *self._taken(), *jax.device_put((rows, choice), self._place.rows), span=span)
    self._state = hidden, cache
    return jax.device_get(result)

  def _taken(self) -> Any:
    """The state, which a call that fails midway does not give back."""
    state, self._state = self._state, None
    return state or self._make_state()

  def _empty(self) -> tuple[jax.Array, KVCache]:
    cfg, b = self._decoder.config, self._shapes.num_slots
    return jnp.zeros((b, cfg.hidden_dim), jnp.dtype(cfg.compute_dtype)), init_cache(cfg, b, self._shapes.max_tokens)

  def _prefill_fn(self, params, hidden, cache, row, source, tokens, start, take, *, span):
    part = jax.tree.map(lambda x: x[:, source, :, :span], cache)
    states, part = self._decoder.apply({'params': params}, tokens, start, part, span, method='extend')
    last = jnp.take_along_axis(states, (take - 1)[:, None, None], axis=1)[:, 0]  # [P, D]
    # A row that stands here twice is written twice, with the same values.
    cache = jax.tree.map(lambda x, y: x.at[:, row, :, :span].set(y), cache, part)
    return hidden.at[row].set(last), cache

  def _decode_fn(self, params, hidden, cache, rows, choice, *, span):
    choose = functools.partial(
        choose_by_row, allowed=self._allowed, rows=choice, num_candidates=self._config.num_candidates)
    return decode(self._decoder, params, hidden, cache, rows, choose, num_steps=self._config.decode_steps, span=span)
