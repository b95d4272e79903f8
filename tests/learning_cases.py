"""A tiny policy and packed batches that the learner's tests share."""

import jax
import numpy as np

from eijax.learning import losses, optimizer, packing, scoring, sharding, step
from eijax.policy.config import PolicyConfig
from eijax.policy.decoder import Decoder

VOCAB = 64
# Every sharded dimension divides by eight, the largest mesh axis of the tests.
CONFIG = PolicyConfig(
    vocab_size=VOCAB, num_layers=2, hidden_dim=16, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=32)
POLICY = Decoder(CONFIG)
RATE = np.float32(1e-2)


def segments(seed=0, num=24):
  """One-turn segments of differing lengths, with random advantages and plausible log-probs."""
  rng = np.random.default_rng(seed)
  result = []
  for _ in range(num):
    prompt, response = rng.integers(0, VOCAB, rng.integers(3, 9)), rng.integers(0, VOCAB, rng.integers(1, 8))
    result += packing.merge_turns([packing.TurnSample(
        prompt_ids=prompt, response_ids=response, advantage=float(rng.normal()),
        behavior_log_probs=rng.normal(-4.2, 0.2, len(response)).astype(np.float32))])
  return result


def batch(seed=0, num=24, rows=16, row_length=32):
  config = packing.PackingConfig(row_lengths=(row_length,), rows_per_minibatch=rows)
  return packing.pack_minibatches(segments(seed, num), config, seed=seed)[0]


class Learner:
  """A state and an update step on one mesh."""

  def __init__(self, spec='', num_devices=1, *, loss_fn=None, chunk_length=0, score_fn=None, config=None, policy=POLICY):
    self.mesh = sharding.make_mesh(spec, jax.devices()[:num_devices])
    self.optimizer = optimizer.make_optimizer(config or optimizer.OptimizerConfig())
    self.init_fn = step.params_init(policy)
    self.abstract = step.abstract_train_state(self.init_fn, self.optimizer, self.mesh)
    self.state = step.create_train_state(self.init_fn, self.optimizer, self.mesh, jax.random.key(0))
    self.update = step.make_update_step(
        score_fn or scoring.make_score_fn(policy, temperature=0.7, chunk_length=chunk_length),
        loss_fn or losses.policy_loss_fn(losses.PolicyLossConfig()), self.optimizer, self.mesh,
        step.state_shardings(self.abstract))

  def run(self, packed, num_micro_batches=1):
    placed = sharding.put_batch(packed, self.mesh, num_micro_batches)
    self.state, metrics = self.update(self.state, placed, RATE)
    return jax.tree.map(float, metrics)
