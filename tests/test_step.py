"""The update step: accumulation, sharding, compilation, donation, what it is a parameter of."""

import itertools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.learning import losses, optimizer, packing, scoring, sharding, step
from eijax.policy.config import PolicyConfig
from eijax.policy.decoder import Decoder
from learning_cases import Learner, RATE, POLICY, batch

# All ways to deal eight devices out to the axes; the policy has four heads. Those that `make test` leaves to `make test-slow` are slow.
_ALL = [sizes for sizes in itertools.product((1, 2, 4, 8), repeat=4) if math.prod(sizes) == 8 and sizes[3] <= 4]
_FAST = {(1, 8, 1, 1): 0, (2, 4, 1, 1): 4, (1, 2, 2, 2): 4}
# With chunks of the vocabulary, which are split otherwise on every mesh; 0 is the plain way.
MESHES = [pytest.param(','.join(f'{axis}={size}' for axis, size in zip(sharding.MESH_AXES, sizes)), _FAST.get(sizes, 4),
                       marks=() if sizes in _FAST else pytest.mark.slow) for sizes in _ALL]


def host(tree):
  return jax.tree.map(np.asarray, tree)


def assert_close(actual, expected, rtol, atol):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol), host(actual), host(expected))


def test_accumulated_gradient_equals_the_full_one():
  packed = batch(num=30)  # Fills 12 of 16 rows, so that micro-batches hold unequal numbers of tokens.
  score = scoring.make_score_fn(POLICY, temperature=0.7)
  loss_fn = losses.policy_loss_fn(losses.PolicyLossConfig())
  params = Learner().state.params
  full = jax.jit(jax.grad(lambda p: loss_fn(score(p, packed), packed).loss_sum))(params)
  counts = packed.loss_mask.reshape(4, -1).sum(1)
  assert len(set(counts)) > 2
  folded = jax.tree.map(lambda x: x.reshape(4, 4, -1), packed)
  sums, terms = jax.jit(lambda p, b: step.accumulate_gradients(score, loss_fn, p, b))(params, folded)
  assert terms.count == packed.loss_mask.sum()
  # Float32 sums of the same 100-odd token gradients in another order.
  assert_close(sums, full, rtol=1e-4, atol=1e-5)


def test_padding_micro_batches_are_weightless_and_not_computed():
  packed = batch(num=4)  # Fits the first micro-batch of four.
  assert packed.loss_mask[0].any() and not packed.loss_mask[4:].any()
  calls = []
  score = scoring.make_score_fn(POLICY, temperature=0.7)

  def counted(params, micro):
    jax.debug.callback(lambda: calls.append(1))
    return score(params, micro)

  one, four = Learner(), Learner(score_fn=counted)
  whole, folded = one.run(packed, 1), four.run(packed, 4)
  jax.effects_barrier()
  assert len(calls) == 1
  assert whole['num_tokens'] == packed.loss_mask.sum()
  for name in whole:
    # The same tokens; sums run over 4 rows instead of 16.
    np.testing.assert_allclose(folded[name], whole[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.fixture(scope='module')
def single_device():
  learner = Learner()
  initial = host(learner.state.params)
  metrics = [learner.run(batch(seed), 2) for seed in range(3)]
  return initial, metrics, host(learner.state)


@pytest.mark.parametrize('spec, chunk_length', MESHES)
def test_eight_devices_equal_one(single_device, spec, chunk_length):
  initial, metrics, final = single_device
  learner = Learner(spec, 8, chunk_length=chunk_length)
  # The key alone decides.
  jax.tree.map(np.testing.assert_array_equal, host(learner.state.params), initial)
  for seed, expected in enumerate(metrics):
    old = learner.state
    actual = learner.run(batch(seed), 2)
    assert all(x.is_deleted() for x in jax.tree.leaves(old))  # Donated.
    # Float32 sums over devices in another order; 1e-7 was seen for the loss.
    assert actual['loss'] == pytest.approx(expected['loss'], rel=0, abs=1e-5), seed
    for name in expected:
      np.testing.assert_allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5, err_msg=f'{name} at {seed}')
  # Adam divides by the gradient's size: where that is near its rounding error, updates differ by a share of the
  # learning rate, 0.01. 1e-5 of the largest weight of an array was seen, 1e-6 of its norm.
  for actual, expected in zip(jax.tree.leaves(host(learner.state.params)), jax.tree.leaves(final.params), strict=True):
    assert np.abs(actual - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)
  assert int(learner.state.step) == 3
  assert learner.update._cache_size() == 1  # One shape, one compilation.


def test_parameters_and_moments_are_sharded_from_the_start():
  learner = Learner('data=2,fsdp=2,tensor=2', 8)
  kernel = lambda tree: tree['layers']['gate']['kernel']
  adam = learner.state.opt_state[1]
  for tree in (learner.state.params, adam.mu, adam.nu):
    assert kernel(tree).sharding.spec == PartitionSpec(None, 'fsdp', 'tensor')
    assert kernel(tree).addressable_shards[0].data.shape == (2, 8, 16)
  before = jax.tree.map(lambda x: x.sharding, learner.state)
  learner.run(batch())
  assert jax.tree.map(lambda x: x.sharding, learner.state) == before


def test_policy_updates_raise_the_probability_of_favoured_responses():
  learner = Learner(config=optimizer.OptimizerConfig(weight_decay=0.0))
  packed = batch()
  score = jax.jit(scoring.make_score_fn(POLICY, temperature=0.7))
  before = score(learner.state.params, packed).log_probs
  packed = packed._replace(behavior_log_probs=np.asarray(before))
  for _ in range(3):
    learner.run(packed)
  change = np.asarray(score(learner.state.params, packed).log_probs - before)
  assert change[packed.advantages > 0.3].mean() > 0.02 > -0.02 > change[packed.advantages < -0.3].mean()


def test_the_same_step_learns_from_demonstrations():
  learner = Learner(loss_fn=losses.supervised_loss_fn, score_fn=scoring.make_score_fn(POLICY, temperature=1.0))
  rng = np.random.default_rng(0)
  demos = [packing.merge_turns([packing.supervised_sample(rng.integers(0, 64, 5), rng.integers(0, 64, 4))])[0]
           for _ in range(8)]
  packed = packing.pack_minibatches(demos, packing.PackingConfig(row_lengths=(16,), rows_per_minibatch=8), seed=0)[0]
  losses_seen = [learner.run(packed)['loss'] for _ in range(25)]
  # ln 64 = 4.16 at the start, when nothing is known; 32 tokens are nearly learned by heart.
  assert losses_seen[0] > 4 and losses_seen[-1] < 1.2
  assert learner.run(packed).keys() == {'loss', 'num_tokens', 'entropy', 'grad_norm', 'update_norm', 'param_norm',
                                        'learning_rate'}


def test_a_state_around_given_parameters_starts_the_optimizer_afresh():
  learner = Learner('fsdp=8', 8)
  learner.run(batch())
  trained = host(learner.state.params)
  state = step.train_state_of(learner.state.params, learner.optimizer, learner.abstract)
  assert int(state.step) == 0 and not any(np.asarray(x).any() for x in jax.tree.leaves(state.opt_state))
  jax.tree.map(np.testing.assert_array_equal, host(state.params), trained)
  assert jax.tree.map(lambda x: x.sharding, state) == step.state_shardings(learner.abstract)


def test_states_that_cannot_be_trained_are_refused():
  shape = dict(vocab_size=64, num_layers=1, hidden_dim=12, num_heads=2, num_kv_heads=2, head_dim=8, mlp_dim=16)
  make = optimizer.make_optimizer(optimizer.OptimizerConfig())
  mesh = sharding.make_mesh('fsdp=8')
  with pytest.raises(UsageError, match="params/embedding.*axis 'embed' has size 12, which mesh fsdp=8"):
    step.abstract_train_state(step.params_init(Decoder(PolicyConfig(**shape))), make, mesh)
  half = PolicyConfig(**(shape | {'hidden_dim': 16, 'param_dtype': 'bfloat16'}))
  with pytest.raises(UsageError, match='param_dtype=bfloat16 cannot be trained'):
    step.abstract_train_state(step.params_init(Decoder(half)), make, mesh)


def test_the_step_lowers_from_shapes_alone():
  learner = Learner('fsdp=8', 8)
  shape = lambda dtype: jax.ShapeDtypeStruct((2, 8, 32), dtype)
  abstract = packing.PackedBatch(*[shape(jnp.int32)] * 4, shape(bool), *[shape(jnp.float32)] * 2)
  lowered = learner.update.lower(learner.abstract, abstract, jax.ShapeDtypeStruct((), jnp.float32))
  # The donated state is aliased to the new one, on every device.
  assert 'jax.buffer_donor' in lowered.as_text() or 'tf.aliasing_output' in lowered.as_text()


def test_activations_stay_split_over_rows():
  learner = Learner('fsdp=8', 8)
  placed = sharding.put_batch(batch(), learner.mesh, 2)
  text = learner.update.lower(learner.state, placed, RATE).compile().as_text()
  # 8 rows of a micro-batch on 8 devices: with every row on one device, the partitioner has split D instead. The embedding
  # does so on purpose, inside its shard_map, where one exchange gives each device its own rows.
  outside = '\n'.join(line for line in text.splitlines() if 'shard_map' not in line)
  assert 'f32[1,32,16]' in outside and 'f32[8,32,2]' not in outside
