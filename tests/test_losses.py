"""Losses against float64 NumPy, finite differences and poison."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.learning import losses

B, T, V = 3, 5, 11
CLIP, ENTROPY, TEMPERATURE = 0.2, 0.01, 0.6


def make_case(seed=0):
  """logits, targets, mask, behavior log-probs near the policy's, advantages."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(size=(B, T, V))
  targets = rng.integers(0, V, (B, T))
  loss_mask = rng.random((B, T)) < 0.7
  log_probs, _ = reference_scores(logits, targets)
  behavior = log_probs + rng.normal(0, 0.3, (B, T))  # Some ratios lie beyond the clip on either side.
  return logits, targets, loss_mask, behavior, rng.normal(size=(B, T))


def reference_scores(logits, targets):
  """Float64 log-probs and entropies, written without any trick."""
  p = np.exp(logits / TEMPERATURE)
  p /= p.sum(-1, keepdims=True)
  return np.log(np.take_along_axis(p, targets[..., None], -1)[..., 0]), -(p * np.log(p)).sum(-1)


def reference_loss(logits, targets, loss_mask, behavior, advantages):
  """Float64 loss sum and metric sums, token by token."""
  log_probs, entropy = reference_scores(logits, targets)
  out = dict.fromkeys(('loss', 'policy_loss', 'entropy', 'clip_fraction', 'approx_kl_k1', 'approx_kl_k3',
                       'importance_ratio', 'importance_ratio_max'), 0.0)
  for index in zip(*np.nonzero(loss_mask)):
    ratio, a = np.exp(log_probs[index] - behavior[index]), advantages[index]
    clipped = min(max(ratio, 1 - CLIP), 1 + CLIP)
    surrogate = min(ratio * a, clipped * a)
    out['policy_loss'] -= surrogate
    out['loss'] += -surrogate - ENTROPY * entropy[index]
    out['entropy'] += entropy[index]
    out['clip_fraction'] += (a > 0 and ratio > 1 + CLIP) or (a < 0 and ratio < 1 - CLIP)
    out['approx_kl_k1'] += -np.log(ratio)
    out['approx_kl_k3'] += ratio - 1 - np.log(ratio)
    out['importance_ratio'] += ratio
    out['importance_ratio_max'] = max(out['importance_ratio_max'], ratio)
  return out


def terms_of(logits, targets, loss_mask, behavior, advantages):
  scores = losses.token_scores(logits, targets, loss_mask, temperature=TEMPERATURE)
  return losses.clipped_policy_loss(scores.log_probs, scores.entropy, behavior, advantages, loss_mask,
                                    clip_epsilon=CLIP, entropy_coef=ENTROPY)


def as_float32(logits, targets, loss_mask, behavior, advantages):
  f32 = lambda x: jnp.asarray(x, jnp.float32)
  return f32(logits), jnp.asarray(targets, jnp.int32), jnp.asarray(loss_mask), f32(behavior), f32(advantages)


@pytest.mark.parametrize('jit', [False, True])
def test_policy_loss_equals_float64_numpy(jit):
  case = make_case()
  expected = reference_loss(*case)
  assert 0 < expected['clip_fraction'] < case[2].sum()
  metrics = losses.mean_metrics((jax.jit(terms_of) if jit else terms_of)(*as_float32(*case)))
  count = case[2].sum()
  assert metrics['num_tokens'] == count
  for name, value in expected.items():
    # Float32 rounding (6e-8 relative) of about ten terms of size one.
    np.testing.assert_allclose(metrics[name], value / (1 if name.endswith('max') else count), rtol=5e-6, atol=5e-6,
                               err_msg=name)


def test_policy_gradient_equals_finite_differences():
  case = make_case(seed=1)
  logits, rest = case[0], case[1:]
  grad = jax.grad(lambda x: terms_of(x, *as_float32(*case)[1:]).loss_sum)(as_float32(*case)[0])
  step, rng = 1e-5, np.random.default_rng(2)
  for flat in rng.choice(logits.size, 40, replace=False):
    index = np.unravel_index(flat, logits.shape)
    up, down = logits.copy(), logits.copy()
    up[index] += step
    down[index] -= step
    slope = (reference_loss(up, *rest)['loss'] - reference_loss(down, *rest)['loss']) / (2 * step)
    # The difference is exact to step**2 in float64; what remains is float32 rounding of the gradient.
    np.testing.assert_allclose(grad[index], slope, rtol=2e-5, atol=2e-6)


def test_an_unchanged_policy_has_ratio_one_and_the_plain_policy_gradient():
  logits, targets, loss_mask, _, advantages = as_float32(*make_case())
  behavior = losses.token_scores(logits, targets, loss_mask, temperature=TEMPERATURE).log_probs
  metrics = losses.mean_metrics(terms_of(logits, targets, loss_mask, behavior, advantages))
  assert metrics['importance_ratio'] == metrics['importance_ratio_max'] == 1
  assert metrics['clip_fraction'] == metrics['approx_kl_k1'] == metrics['approx_kl_k3'] == 0


def test_poison_outside_the_mask_reaches_neither_value_nor_gradient():
  logits, targets, loss_mask, behavior, advantages = as_float32(*make_case())
  loss = lambda x, b, a: terms_of(x, targets, loss_mask, b, a).loss_sum
  clean = jax.value_and_grad(loss)(logits, behavior, advantages)
  nan = lambda x: jnp.where(loss_mask if x.ndim == 2 else loss_mask[..., None], x, jnp.nan)
  poisoned = jax.value_and_grad(loss)(nan(logits), nan(behavior), nan(advantages))
  np.testing.assert_array_equal(poisoned[0], clean[0])
  np.testing.assert_array_equal(poisoned[1], clean[1])
  assert not np.asarray(clean[1])[~np.asarray(loss_mask)].any()
  supervised = lambda x: losses.supervised_loss(x, x, loss_mask).loss_sum
  assert np.isfinite(jax.grad(supervised)(nan(behavior))).all()


def test_a_collapsed_token_stays_finite():
  args = [jnp.full((1, 1), x, jnp.float32) for x in (0.0, 0.0, -500.0, -1.0)]
  loss = lambda p: losses.clipped_policy_loss(p, *args[1:], jnp.ones((1, 1), bool), clip_epsilon=0.2, entropy_coef=0.0)
  value, grad = jax.value_and_grad(lambda p: loss(p).loss_sum)(args[0])
  assert np.isfinite(value) and np.isfinite(grad).all()


def test_supervised_loss_is_cross_entropy():
  logits, targets, loss_mask, _, _ = make_case()
  log_probs, entropy = reference_scores(logits, targets)
  scores = losses.token_scores(*as_float32(logits, targets, loss_mask, logits, logits)[:3], temperature=TEMPERATURE)
  metrics = losses.mean_metrics(losses.supervised_loss(*scores, jnp.asarray(loss_mask)))
  np.testing.assert_allclose(metrics['loss'], -log_probs[loss_mask].mean(), rtol=2e-6)
  np.testing.assert_allclose(metrics['entropy'], entropy[loss_mask].mean(), rtol=2e-6)


def test_terms_of_parts_add_up_to_the_whole():
  case = as_float32(*make_case())
  whole = losses.mean_metrics(terms_of(*case))
  parts = losses.mean_metrics(losses.add_terms(terms_of(*(x[:1] for x in case)), terms_of(*(x[1:] for x in case))))
  assert whole.keys() == parts.keys()
  for name in whole:
    np.testing.assert_allclose(parts[name], whole[name], rtol=2e-6, atol=1e-7, err_msg=name)


def test_bad_settings_and_shapes_are_refused():
  with pytest.raises(UsageError, match='clip_epsilon=0.0 must lie between'):
    losses.PolicyLossConfig(clip_epsilon=0.0)
  with pytest.raises(UsageError, match='entropy_coef=-1'):
    losses.PolicyLossConfig(entropy_coef=-1)
  with pytest.raises(ValueError, match='one shape'):
    losses.supervised_loss(jnp.zeros((2, 3)), jnp.zeros((2, 3)), jnp.ones((2, 1), bool))
  with pytest.raises(ValueError, match='vocabulary axis'):
    losses.token_scores(jnp.zeros((2, 3)), jnp.zeros((2, 3), int), jnp.ones((2, 3), bool), temperature=1.0)
