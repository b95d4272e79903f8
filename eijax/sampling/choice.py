"""One token from each row of logits. Axes: B rows, V vocabulary, J candidates."""

import jax
import jax.numpy as jnp

from eijax.sampling.config import SamplingConfig


def keep_nucleus(logits: jax.Array, top_p: float) -> jax.Array:
  """Mask of the smallest set of tokens whose probability reaches top_p.

  Args:
    logits: float32[B, J], sorted from high to low.
    top_p: in (0, 1]; the most probable token is always kept.
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
  scaled = logits.astype(jnp.float32) / config.temperature
  log_probs = jax.nn.log_softmax(scaled, axis=-1)
  masked = jnp.where(allowed[None, :], scaled, -jnp.inf)
  if config.top_k or config.top_p < 1:
    num_candidates = min(config.top_k or masked.shape[-1], masked.shape[-1])
    values, indices = jax.lax.top_k(masked, num_candidates)  # [B, J], sorted.
    values = jnp.where(keep_nucleus(values, config.top_p), values, -jnp.inf)
    choice = jax.vmap(jax.random.categorical)(keys, values)
    token = jnp.take_along_axis(indices, choice[:, None], axis=1)[:, 0]
  else:
    token = jax.vmap(jax.random.categorical)(keys, masked)
  return token, jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]
