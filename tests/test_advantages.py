"""Advantages against arrays worked out by hand."""

import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.learning import advantages as adv

# Float64 sums of a handful of terms: a few units in the last place.
TIGHT = dict(rtol=1e-12, atol=1e-12)


def test_trace_advantages_normalise_within_interleaved_groups():
  # Group 7: rewards 0, 1, -1 -> mean 0, unbiased std 1. Group 3: 0.2, 0.8 -> mean 0.5, std 0.3 * sqrt(2).
  result = adv.trace_advantages([0.0, 0.2, 1.0, -1.0, 0.8], [7, 3, 7, 7, 3])
  std = 0.3 * np.sqrt(2)
  expected = [0.0, -0.3 / (std + 1e-6), 1 / (1 + 1e-6), -1 / (1 + 1e-6), 0.3 / (std + 1e-6)]
  np.testing.assert_allclose(result, expected, **TIGHT)


def test_sigma_min_floors_a_narrow_group():
  # Std 0.02 * sqrt(2) / 2 = 0.0141 < 0.1, so the floor divides.
  np.testing.assert_allclose(adv.trace_advantages([0.5, 0.52], [0, 0]), [-0.01 / 0.100001, 0.01 / 0.100001], **TIGHT)
  std = 0.01 * np.sqrt(2)
  np.testing.assert_allclose(
      adv.trace_advantages([0.5, 0.52], [0, 0], sigma_min=0.0), [-0.01 / (std + 1e-6), 0.01 / (std + 1e-6)], **TIGHT)


def test_a_group_of_one_has_mean_zero_and_std_one():
  np.testing.assert_allclose(adv.trace_advantages([-0.4, 0.3], [1, 2]), [-0.4 / 1.000001, 0.3 / 1.000001], **TIGHT)


@pytest.mark.parametrize('sigma_min', [0.0, 0.1])
def test_equal_rewards_give_no_advantage(sigma_min):
  # 0.3 has no exact binary form; without the floor its rounding error is divided by 1e-6 only.
  assert np.abs(adv.trace_advantages([0.3] * 8, [0] * 8, sigma_min=sigma_min)).max() < 1e-9


def test_turn_credit_is_centred_per_trace():
  result = adv.turn_advantages(
      [0.5, -1.0], [np.array([0.05, 0.01, -0.03]), np.array([0.04])], alpha=15.0)
  np.testing.assert_allclose(result[0], [0.5 + 0.6, 0.5, 0.5 - 0.6], **TIGHT)
  np.testing.assert_allclose(result[1], [-1.0], **TIGHT)
  np.testing.assert_allclose(result[0].mean(), 0.5, **TIGHT)


def test_uncentred_credit_and_plain_grpo():
  rewards = [np.array([0.05, 0.01])]
  np.testing.assert_allclose(adv.turn_advantages([0.5], rewards, alpha=15.0, centred=False)[0], [1.25, 0.65], **TIGHT)
  np.testing.assert_allclose(adv.turn_advantages([0.5], rewards, alpha=0.0)[0], [0.5, 0.5], **TIGHT)


def test_scene_groups_pool_the_scenarios_of_a_scene():
  given = dict(rewards=[0.0, 1.0, -1.0], scenario_ids=[0, 1, 2], scene_ids=[0, 0, 0], process_rewards=[[0.0]] * 3)
  pooled = adv.estimate_advantages(adv.algorithm_config('ctc_grpo_scene_groups'), **given)
  np.testing.assert_allclose(np.concatenate(pooled), np.array([0, 1, -1]) / (1 + 1e-6), **TIGHT)
  alone = adv.estimate_advantages(adv.algorithm_config('ctc_grpo'), **given)
  np.testing.assert_allclose(np.concatenate(alone), np.array([0, 1, -1]) / (1 + 1e-6), **TIGHT)
  given['rewards'] = [1.0, 2.0, 3.0]
  pooled = adv.estimate_advantages(adv.algorithm_config('ctc_grpo_scene_groups'), **given)
  np.testing.assert_allclose(np.concatenate(pooled), np.array([-1, 0, 1]) / (1 + 1e-6), **TIGHT)


@pytest.mark.parametrize('name, expected', [
    ('ctc_grpo', adv.AdvantageConfig()),
    ('grpo', adv.AdvantageConfig(alpha=0.0)),
    ('ctc_grpo_uncentred', adv.AdvantageConfig(centred=False)),
    ('ctc_grpo_no_sigma_min', adv.AdvantageConfig(sigma_min=0.0)),
    ('ctc_grpo_scene_groups', adv.AdvantageConfig(group_by='scene')),
])
def test_algorithm_names(name, expected):
  assert adv.algorithm_config(name) == expected


def test_algorithm_overrides_and_contradictions():
  assert adv.algorithm_config('ctc_grpo', alpha=5.0, sigma_min=0.2) == adv.AdvantageConfig(alpha=5.0, sigma_min=0.2)
  assert adv.algorithm_config('grpo', alpha=0.0).alpha == 0.0
  with pytest.raises(UsageError, match="alpha=3.0 contradicts algorithm='grpo'"):
    adv.algorithm_config('grpo', alpha=3.0)
  with pytest.raises(UsageError, match='ctc_grpo, ctc_grpo_no_sigma_min'):
    adv.algorithm_config('ppo')
  with pytest.raises(UsageError, match='alpha=-1.0 must be'):
    adv.algorithm_config('ctc_grpo', alpha=-1.0)


def test_bad_rewards_are_refused():
  with pytest.raises(ValueError, match=r'rewards\[1\]=nan'):
    adv.trace_advantages([0.0, np.nan], [0, 0])
  with pytest.raises(ValueError, match='must both be'):
    adv.trace_advantages([0.0, 1.0], [0])
  with pytest.raises(ValueError, match='at least one turn'):
    adv.turn_advantages([0.0], [np.array([])], alpha=15.0)
