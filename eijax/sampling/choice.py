"""One token from each row of logits. Axes: B rows, V vocabulary, J candidates."""

from collections.abc import Sequence

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from eijax.sampling.config import SamplingConfig


def allowed_mask(vocab_size: int, ids: Sequence[int]) -> jax.Array:
  """bool[V], true at the ids that may be sampled."""
  allowed = np.zeros(vocab_size, bool)
  allowed[list(ids)] = True
  return jnp.asarray(allowed)


def keep_nucleus(logits: jax.Array, top_p: float | jax.Array) -> jax.Array:
  """Mask of the smallest set of tokens whose probability reaches top_p.

  Args:
    logits: float32[B, J], sorted from high to low.
    top_p: in (0, 1], one for all rows or float32[B, 1]; the most probable token is always kept.
  Returns:
    bool[B, J]. Source: Holtzman et al. 2020, https://arxiv.org/abs/1904.09751.
  """
  probabilities = jax.nn.softmax(logits, axis=-1)
  before = jnp.cumsum(probabilities, axis=-1) - probabilities
  return before < top_p


def choose_tokens(
    logits: jax.Array, keys: jax.Array, allowed: jax.Array, config: SamplingConfig,
) -> tuple[jax.Array, jax.Array]:
  """Sample a token a row: temperature, then the id mask, then top-k, then top-p.

  Args:
    logits: float32[B, V].
    keys: PRNG keys [B], one a row, so that a row's choice depends on its own key only.
    allowed: bool[V], ids that may be sampled.
    config: its values are compiled in.
  Returns:
    (int32[B] ids, float32[B] log_softmax(logits / temperature) at them, before any cut).
  """
  masked, log_probs = _scaled(logits, config.temperature, allowed)
  if config.top_k or config.top_p < 1:
    num_candidates = min(config.top_k or masked.shape[-1], masked.shape[-1])
    values, indices = jax.lax.top_k(masked, num_candidates)  # [B, J], sorted.
    token = _draw(keys, values, indices, config.top_p)
  else:
    token = jax.vmap(jax.random.categorical)(keys, masked)
  return token, jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]


@struct.dataclass
class RowChoice:
  """SamplingConfig's values as arrays, one a row: temperature, top_p float32[B], top_k int32[B]."""

  temperature: jax.Array
  top_p: jax.Array
  top_k: jax.Array


def choose_by_row(
    logits: jax.Array, keys: jax.Array, allowed: jax.Array, rows: RowChoice, num_candidates: int,
) -> tuple[jax.Array, jax.Array]:
  """Sample a token a row as `choose_tokens` does, each row with values of its own.

  A row is drawn in one of three ways, which its own values alone decide: from all ids,
  from the num_candidates most probable ones (0 < top_k <= num_candidates), or from all
  of them sorted (any other cut). Sorting a large vocabulary is slow, so the last two
  run only where some row wants them; the result of a row does not depend on that.

  Args, Returns: see `choose_tokens`.
  """
  masked, log_probs = _scaled(logits, rows.temperature[:, None], allowed)
  v = masked.shape[-1]
  num_candidates = min(num_candidates, v)
  narrow = (rows.top_k > 0) & (rows.top_k <= num_candidates)
  wide = ~narrow & ((rows.top_p < 1) | ((rows.top_k > 0) & (rows.top_k < v)))
  token = jax.vmap(jax.random.categorical)(keys, masked)
  for wanted, size in ((narrow, num_candidates), (wide, v)):

    def cut(size=size):
      values, indices = jax.lax.top_k(masked, size)  # [B, J], sorted.
      top_k = jnp.where(rows.top_k > 0, rows.top_k, v)[:, None]
      values = jnp.where(jnp.arange(size)[None, :] < top_k, values, -jnp.inf)
      return _draw(keys, values, indices, rows.top_p[:, None])

    drawn = jax.lax.cond(jnp.any(wanted), cut, lambda: jnp.zeros_like(token))
    token = jnp.where(wanted, drawn, token)
  return token, jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]


def _scaled(logits, temperature, allowed):
  """(scaled logits with -inf at ids that may not be sampled, log-probs before that), float32[B, V]."""
  scaled = logits.astype(jnp.float32) / temperature
  return jnp.where(allowed[None, :], scaled, -jnp.inf), jax.nn.log_softmax(scaled, axis=-1)


def _draw(keys, values, indices, top_p):
  """int32[B]: an id from the nucleus of sorted candidates [B, J]."""
  values = jnp.where(keep_nucleus(values, top_p), values, -jnp.inf)
  choice = jax.vmap(jax.random.categorical)(keys, values)
  return jnp.take_along_axis(indices, choice[:, None], axis=1)[:, 0]
