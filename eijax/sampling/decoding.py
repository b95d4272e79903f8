"""The decode loop: a token a row and step, until every row has stopped or the steps are over.

Axes: B rows, R steps, D model, V vocabulary, J stop ids.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from eijax.policy.decoder import Decoder, KVCache


@struct.dataclass
class DecodeRows:
  """Where each row stands.

  lengths: int32[B], cells that hold tokens of the row. counts: int32[B], tokens of its
  response so far. limits: int32[B], tokens after which it ends. seeds: int32[B], of
  the response; its token number i is drawn with fold_in(key(seed), i). is_open:
  bool[B]. stop_ids: int32[B, J], -1 for none.
  """

  lengths: jax.Array
  counts: jax.Array
  limits: jax.Array
  seeds: jax.Array
  is_open: jax.Array
  stop_ids: jax.Array


def decode(
    decoder: Decoder, params: Any, hidden: jax.Array, cache: KVCache, rows: DecodeRows,
    choose: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]], *, num_steps: int, span: int,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, KVCache]:
  """Sample up to num_steps tokens for each open row.

  Args:
    hidden: compute_dtype[B, D], states of the rows' last tokens.
    choose: (float32[B, V] logits, keys [B]) -> (int32[B] ids, float32[B] log-probs).
    span: cells that are read; every open row ends below it.
  Returns:
    (int32[B, R] ids, float32[B, R] log-probs, int32[B] how many of them are the row's, hidden, cache).
  """
  apply = functools.partial(decoder.apply, {'params': params})
  keys = jax.vmap(jax.random.key)(rows.seeds)

  def unfinished(carry):
    return (carry['index'] < num_steps) & jnp.any(carry['open'])

  def one_token(carry):
    i, is_open = carry['index'], carry['open']
    logits = apply(carry['hidden'], method='logits')  # float32[B, V]
    token, log_prob = choose(logits, jax.vmap(jax.random.fold_in)(keys, rows.counts + carry['taken']))
    states, cache = apply(token[:, None], rows.lengths + carry['taken'], carry['cache'], span, method='extend')
    taken = carry['taken'] + is_open
    stopped = jnp.any(token[:, None] == rows.stop_ids, axis=1)
    return {
        'index': i + 1,
        'open': is_open & ~stopped & (rows.counts + taken < rows.limits),
        'hidden': states[:, 0],
        'cache': cache,
        # A closed row writes its next junk token into the same cell, which its next prompt overwrites.
        'taken': taken,
        'ids': carry['ids'].at[:, i].set(jnp.where(is_open, token, 0)),
        'log_probs': carry['log_probs'].at[:, i].set(jnp.where(is_open, log_prob, 0.0)),
    }

  b = hidden.shape[0]
  apart = decoder.config.scan_unroll >= decoder.config.num_layers
  end = jax.lax.while_loop(unfinished, one_token, {
      'index': jnp.zeros((), jnp.int32), 'open': rows.is_open, 'hidden': hidden,
      'cache': cache.by_layer(span) if apart else cache,
      'taken': jnp.zeros(b, jnp.int32), 'ids': jnp.zeros((b, num_steps), jnp.int32),
      'log_probs': jnp.zeros((b, num_steps), jnp.float32)})
  return end['ids'], end['log_probs'], end['taken'], end['hidden'], (
      cache.with_layers(end['cache']) if apart else end['cache'])
