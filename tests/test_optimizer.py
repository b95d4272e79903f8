"""Schedule and AdamW against their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.learning.optimizer import OptimizerConfig, learning_rate_at, make_optimizer


def test_schedule_warms_up_and_decays_to_a_tenth():
  config = OptimizerConfig(learning_rate=1.0, warmup_fraction=0.04, final_fraction=0.1)
  rates = [float(learning_rate_at(config, step, 100)) for step in range(100)]
  np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1.0, 1.0], rtol=1e-6)
  # Halfway between step 4 (progress 0) and step 99 (progress 1) the cosine is at its mean.
  np.testing.assert_allclose((rates[51] + rates[52]) / 2, 0.55, rtol=1e-6)
  np.testing.assert_allclose(rates[99], 0.1, rtol=1e-6)
  assert all(a > b for a, b in zip(rates[4:], rates[5:]))
  assert learning_rate_at(config, 0, 1) == 1.0  # A run of one step learns at the peak.
  assert learning_rate_at(config, 500, 100) == np.float32(0.1)


def test_updates_follow_adamw_in_float64():
  config = OptimizerConfig(max_grad_norm=1.0, weight_decay=0.1)
  optimizer = make_optimizer(config)
  params = {'query': {'kernel': jnp.array([[1.0, -2.0]])}, 'norm': {'scale': jnp.array([[3.0]])}}
  state = optimizer.init(params)
  kernel, scale = np.array([[1.0, -2.0]]), np.array([[3.0]])
  m = v = np.zeros(3)
  for t, (a, b) in enumerate([((3.0, 0.0), 4.0), ((0.1, -0.2), 0.0)], start=1):
    grads = {'query': {'kernel': jnp.array([a])}, 'norm': {'scale': jnp.array([[b]])}}
    updates, state = optimizer.update(grads, state, params, learning_rate=np.float32(0.01))
    g = np.array([*a, b])
    g *= min(1.0, 1.0 / np.linalg.norm(g))
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    expected = -0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    expected[:2] -= 0.01 * 0.1 * kernel[0]  # Norms are not decayed, whatever their rank.
    # 1 - 0.999 in float32 carries a relative error of 3e-5.
    np.testing.assert_allclose(updates['query']['kernel'][0], expected[:2], rtol=1e-4)
    np.testing.assert_allclose(updates['norm']['scale'][0], expected[2:], rtol=1e-4)
    params = {'query': {'kernel': params['query']['kernel'] + updates['query']['kernel']},
              'norm': {'scale': params['norm']['scale'] + updates['norm']['scale']}}
    kernel, scale = kernel + expected[:2], scale + expected[2:]
  np.testing.assert_allclose(params['query']['kernel'], kernel, rtol=1e-5)
  np.testing.assert_allclose(params['norm']['scale'], scale, rtol=1e-5)


@pytest.mark.parametrize('setting, message', [
    ({'learning_rate': 0.0}, 'learning_rate=0.0 must be above 0'),
    ({'warmup_fraction': 1.5}, 'warmup_fraction=1.5 must lie in 0..1'),
    ({'max_grad_norm': -1.0}, 'max_grad_norm=-1.0 must be at least 0'),
    ({'learning_rate': float('nan')}, 'learning_rate=nan must be above 0'),
])
def test_bad_settings_are_refused(setting, message):
  with pytest.raises(UsageError, match=message):
    OptimizerConfig(**setting)
