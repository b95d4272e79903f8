"""Losses over scored tokens: arrays in, sums out.

Every loss returns sums and a token count instead of a mean, so that micro-batches
add up exactly: the mean over a mini-batch is (sum of sums) / (sum of counts).

Axes: B rows, T positions, V vocabulary. Logits, log-probs and losses are float32.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from eijax.errors import UsageError
from eijax.learning.packing import PackedBatch

# exp(20) = 5e8: far beyond any ratio that training survives, yet finite, so that one token whose
# probability collapsed cannot turn the whole gradient into NaN.
MAX_LOG_RATIO = 20.0


class TokenScores(NamedTuple):
  """What a loss needs to know of the policy at each position; zero where loss_mask is false."""

  log_probs: jax.Array  # float32[B, T], of the targets.
  entropy: jax.Array  # float32[B, T], of the distribution that the target was drawn from.


class LossTerms(NamedTuple):
  """Sums over scored tokens.

  loss_sum / count is the loss. `sums` are metrics to divide by count, `maxima` metrics to take the maximum of.
  """

  loss_sum: jax.Array  # float32[]
  count: jax.Array  # float32[], number of scored tokens.
  sums: dict[str, jax.Array]  # float32[] each
  maxima: dict[str, jax.Array]  # float32[] each


LossFn = Callable[[TokenScores, PackedBatch], LossTerms]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyLossConfig:
  """clip_epsilon: half-width of the trust region around ratio 1. entropy_coef: weight of the entropy bonus."""

  clip_epsilon: float = 0.2
  entropy_coef: float = 0.001

  def __post_init__(self):
    if not 0 < self.clip_epsilon < 1:
      raise UsageError(f'clip_epsilon={self.clip_epsilon} must lie between 0 and 1; the paper uses 0.2')
    if not self.entropy_coef >= 0:
      raise UsageError(f'entropy_coef={self.entropy_coef} must be at least 0; the paper uses 0.001')


def token_scores(logits: jax.Array, targets: jax.Array, loss_mask: jax.Array, *, temperature: float) -> TokenScores:
  """Log-probability of each target and entropy of its distribution.

  The distribution is softmax(logits / temperature), before any top-k or top-p truncation. The sampler
  records its behavior log-probs by the same rule, so that both sides of the importance ratio are
  densities of the same family and an unchanged policy has ratio 1 exactly.

  Args:
    logits: [..., V].
    targets: int32[...].
    loss_mask: bool[...]; logits elsewhere may hold anything, NaN included, and get no gradient.
    temperature: the one that the targets were sampled with; 1 for demonstrations.
  """
  _check_shapes(targets=targets, loss_mask=loss_mask)
  if logits.shape[:-1] != targets.shape:
    raise ValueError(f'logits {logits.shape} must be targets {targets.shape} plus a vocabulary axis')
  # Masked before the function, not after: 0 * NaN in the backward pass is NaN.
  scaled = jnp.where(loss_mask[..., None], logits.astype(jnp.float32), 0.0) / temperature
  log_z = jax.nn.logsumexp(scaled, axis=-1)
  # A masked sum instead of a gather: it stays local to each shard of a vocabulary that is split over
  # devices, and its gradient is a select instead of a scatter.
  is_target = jax.lax.broadcasted_iota(jnp.int32, scaled.shape, scaled.ndim - 1) == targets[..., None]
  log_probs = jnp.sum(jnp.where(is_target, scaled, 0.0), axis=-1) - log_z
  mean_logit = jnp.sum(jnp.exp(scaled - log_z[..., None]) * scaled, axis=-1)
  return TokenScores(log_probs=jnp.where(loss_mask, log_probs, 0.0),
                     entropy=jnp.where(loss_mask, log_z - mean_logit, 0.0))


def clipped_policy_loss(
    policy_log_probs: jax.Array, entropy: jax.Array, behavior_log_probs: jax.Array, advantages: jax.Array,
    loss_mask: jax.Array, *, clip_epsilon: float, entropy_coef: float,
) -> LossTerms:
  """PPO's clipped surrogate with an entropy bonus, per token, against the sampler's log-probs.

  loss_t = -min(rho_t A_t, clip(rho_t, 1 - eps, 1 + eps) A_t) - c H_t, rho_t = exp(policy - behavior).
  Source: https://arxiv.org/abs/1707.06347, equation 7; as used by arXiv 2606.15532, section 4.

  Args:
    policy_log_probs: float32[B, T], differentiated.
    entropy: float32[B, T], differentiated.
    behavior_log_probs: float32[B, T], recorded while sampling.
    advantages: float32[B, T].
    loss_mask: bool[B, T]; all else is ignored where it is false, NaN included.
    clip_epsilon: eps.
    entropy_coef: c.
  Returns:
    LossTerms. Metrics, means over scored tokens: policy_loss; entropy; clip_fraction (tokens whose gradient
    the clip cuts off); approx_kl_k1 and approx_kl_k3 (estimates of KL(sampler || learner) from the sampled
    tokens, http://joschu.net/blog/kl-approx.html; k1 is unbiased, k3 of low variance as well and never negative);
    importance_ratio; and importance_ratio_max.
  """
  _check_shapes(policy_log_probs=policy_log_probs, entropy=entropy, behavior_log_probs=behavior_log_probs,
                advantages=advantages, loss_mask=loss_mask)
  policy_log_probs, entropy, behavior_log_probs, advantages = (
      jnp.where(loss_mask, x.astype(jnp.float32), 0.0)
      for x in (policy_log_probs, entropy, behavior_log_probs, advantages))
  log_ratio = jnp.clip(policy_log_probs - behavior_log_probs, -MAX_LOG_RATIO, MAX_LOG_RATIO)
  ratio = jnp.exp(log_ratio)
  free = ratio * advantages
  clipped = jnp.clip(ratio, 1.0 - clip_epsilon, 1.0 + clip_epsilon) * advantages
  policy_loss = -jnp.minimum(free, clipped)
  weight = loss_mask.astype(jnp.float32)

  def total(x):
    return jnp.sum(x * weight)

  sums = {
      'policy_loss': total(policy_loss),
      'entropy': total(entropy),
      'clip_fraction': total((clipped < free).astype(jnp.float32)),
      'approx_kl_k1': total(-log_ratio),
      'approx_kl_k3': total(jnp.expm1(log_ratio) - log_ratio),
      'importance_ratio': total(ratio),
  }
  return LossTerms(
      loss_sum=total(policy_loss - entropy_coef * entropy), count=jnp.sum(weight), sums=sums,
      maxima={'importance_ratio_max': jnp.max(ratio * weight)})


def supervised_loss(policy_log_probs: jax.Array, entropy: jax.Array, loss_mask: jax.Array) -> LossTerms:
  """Cross-entropy of the targets under loss_mask, in nats per token.

  Args:
    policy_log_probs: float32[B, T], differentiated.
    entropy: float32[B, T], a metric only.
    loss_mask: bool[B, T].
  """
  _check_shapes(policy_log_probs=policy_log_probs, entropy=entropy, loss_mask=loss_mask)
  log_probs, entropy = (jnp.where(loss_mask, x.astype(jnp.float32), 0.0) for x in (policy_log_probs, entropy))
  return LossTerms(loss_sum=-jnp.sum(log_probs), count=jnp.sum(loss_mask.astype(jnp.float32)),
                   sums={'entropy': jnp.sum(entropy)}, maxima={})


def policy_loss_fn(config: PolicyLossConfig) -> LossFn:
  """The clipped policy loss as a function of scores and batch."""

  def loss(scores: TokenScores, batch: PackedBatch) -> LossTerms:
    return clipped_policy_loss(
        scores.log_probs, scores.entropy, batch.behavior_log_probs, batch.advantages, batch.loss_mask,
        clip_epsilon=config.clip_epsilon, entropy_coef=config.entropy_coef)

  return loss


def supervised_loss_fn(scores: TokenScores, batch: PackedBatch) -> LossTerms:
  """The supervised loss as a function of scores and batch."""
  return supervised_loss(scores.log_probs, scores.entropy, batch.loss_mask)


def add_terms(left: LossTerms, right: LossTerms) -> LossTerms:
  """The terms of both micro-batches together."""
  return LossTerms(
      loss_sum=left.loss_sum + right.loss_sum, count=left.count + right.count,
      sums={name: left.sums[name] + right.sums[name] for name in left.sums},
      maxima={name: jnp.maximum(left.maxima[name], right.maxima[name]) for name in left.maxima})


def mean_metrics(terms: LossTerms) -> dict[str, jax.Array]:
  """Loss and metrics as float32[] each; zeros for a batch without scored tokens."""
  count = jnp.maximum(terms.count, 1.0)
  return {'loss': terms.loss_sum / count, 'num_tokens': terms.count,
          **{name: value / count for name, value in terms.sums.items()}, **terms.maxima}


def _check_shapes(**arrays: jax.Array) -> None:
  shapes = {name: array.shape for name, array in arrays.items()}
  if len(set(shapes.values())) > 1:
    raise ValueError(f'these arrays must have one shape: {shapes}')
