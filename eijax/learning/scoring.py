"""From a policy to token scores, without ever holding the logits of a whole batch.

Axes: B rows, T positions, C positions of a chunk, D model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from eijax.learning.losses import TokenScores, token_scores
from eijax.learning.packing import PackedBatch

ScoreFn = Callable[[Any, PackedBatch], TokenScores]


def make_score_fn(policy: nn.Module, *, temperature: float, chunk_length: int = 0) -> ScoreFn:
  """A function (params, batch) -> TokenScores.

  With chunk_length, each row's scored positions are moved to its front and the vocabulary is visited
  chunk by chunk: chunks that no row scores are skipped, and the logits of the others are recomputed in the
  backward pass. Prompts are most of a row and cost no logits then; memory is B * C * V instead of B * T * V.

  Args:
    policy: a module with methods `hidden` (tokens, positions, segment_ids -> [B, T, D]) and `logits`
      ([..., D] -> float32[..., V]).
    temperature: of sampling; 1 for demonstrations.
    chunk_length: C; 0 computes all logits at once.
  """

  def score_fn(params, batch: PackedBatch) -> TokenScores:
    variables = {'params': params}
    hidden = policy.apply(variables, batch.tokens, batch.positions, batch.segment_ids, method='hidden')

    def score(hidden, targets, loss_mask):
      logits = policy.apply(variables, hidden, method='logits')
      return token_scores(logits, targets, loss_mask, temperature=temperature)

    if not chunk_length or chunk_length >= hidden.shape[1]:
      return score(hidden, batch.targets, batch.loss_mask)
    return _score_in_chunks(score, hidden, batch.targets, batch.loss_mask, chunk_length)

  return score_fn


def _score_in_chunks(score, hidden, targets, loss_mask, chunk_length: int) -> TokenScores:
  """`score` over the positions of each row, scored ones first, in chunks of chunk_length."""
  b, t = targets.shape
  num_chunks = -(-t // chunk_length)
  order = jnp.argsort(~loss_mask, axis=1, stable=True)  # [B, T], scored positions first.
  back = jnp.argsort(order, axis=1)

  def split(x):  # [B, T, ...] -> [num_chunks, B, C, ...]
    x = jnp.pad(x, [(0, 0), (0, num_chunks * chunk_length - t)] + [(0, 0)] * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(b, num_chunks, chunk_length, *x.shape[2:]), 1, 0)

  def join(x):  # [num_chunks, B, C] -> [B, T]
    return jnp.take_along_axis(jnp.moveaxis(x, 0, 1).reshape(b, -1)[:, :t], back, axis=1)

  @jax.checkpoint
  def score_chunk(chunk):
    def skip(_, targets, __):
      zero = jnp.zeros(targets.shape, jnp.float32)
      return TokenScores(log_probs=zero, entropy=zero)

    return jax.lax.cond(jnp.any(chunk[2]), score, skip, *chunk)

  chunks = (split(jnp.take_along_axis(hidden, order[:, :, None], axis=1)),
            split(jnp.take_along_axis(targets, order, axis=1)),
            split(jnp.take_along_axis(loss_mask, order, axis=1)))
  return jax.tree.map(join, jax.lax.map(score_chunk, chunks))
