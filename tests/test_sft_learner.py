"""What fine-tuning learns from: the updates of the supervised learner, and the mini-batches of an epoch."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from eijax.learning import optimizer as optimizer_lib, packing, sharding, step as step_lib
from eijax.learning.supervised import SupervisedLearner, rows_at, segments_of
from eijax.sft.epochs import packed_by_length, plan_epoch
from learning_cases import POLICY, VOCAB
from saved_run import one_device_mesh

CONFIG = optimizer_lib.OptimizerConfig(learning_rate=1e-2)


# ---- The learner ----------------------------------------------------------------------------------


def random_talks(num, seed=0):
  """Segments of one or two turns."""
  rng = np.random.default_rng(seed)
  ids = lambda low, high: rng.integers(0, VOCAB, rng.integers(low, high)).tolist()
  result = []
  for _ in range(num):
    prompt, response = ids(3, 9), ids(1, 8)
    turns = [(prompt, response)]
    if rng.random() < 0.5:
      turns.append((prompt + response + ids(1, 5), ids(1, 8)))
    result += segments_of(turns, 64)
  return result


def one_update(mesh, batch, num_micro_batches=1, chunk_length=0):
  learner = SupervisedLearner(
      POLICY, optimizer_lib.make_optimizer(CONFIG), mesh, num_micro_batches=num_micro_batches, chunk_length=chunk_length)
  state = learner.state_of(fresh_params(learner))
  measured = learner.measure(state.params, [batch])
  (_, state, metrics), = learner.updates(state, [batch], lambda _: np.float32(1e-2))
  return jax.device_get(state.params), jax.tree.map(float, metrics), measured


def fresh_params(learner):
  init, shardings = step_lib.params_init(POLICY), step_lib.state_shardings(learner.abstract).params
  return jax.jit(lambda key: nn.unbox(init(key)), out_shardings=shardings)(jax.random.key(0))


def assert_same_update(left, right):
  # Float32 sums in another order; Adam's first update divides by the gradient's own size, which magnifies rounding.
  np.testing.assert_allclose(left[1]['loss'], right[1]['loss'], rtol=2e-5)
  np.testing.assert_allclose(left[1]['grad_norm'], right[1]['grad_norm'], rtol=1e-4)
  np.testing.assert_allclose(left[2], right[2], rtol=2e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4), left[0], right[0])


@pytest.fixture(scope='module', name='layouts')
def fixture_layouts():
  """The same segments a row each, and packed: (alone, packed), batches of one shape."""
  segments = random_talks(16)
  packed = packing.assign_rows(list(map(len, segments)), 64)
  assert len(packed) < 10
  fill = lambda rows: packing.fill_rows(segments, rows, num_rows=16, row_length=64)
  return fill([[i] for i in range(16)]), fill(packed)


@pytest.mark.slow
def test_packed_rows_have_the_loss_and_the_update_of_rows_of_their_own(layouts):
  alone, packed = (one_update(one_device_mesh(), batch) for batch in layouts)
  assert alone[1]['num_tokens'] == packed[1]['num_tokens'] == alone[2][1]
  np.testing.assert_allclose(alone[1]['loss'], alone[2][0], rtol=1e-5)  # What is measured is what is learned.
  assert_same_update(alone, packed)


def test_the_measured_loss_is_the_cross_entropy_of_the_replies(layouts):
  alone = layouts[0]
  (loss, count) = one_update(one_device_mesh(), alone)[2]
  learner = SupervisedLearner(POLICY, optimizer_lib.make_optimizer(CONFIG), one_device_mesh())
  logits = np.asarray(POLICY.apply({'params': fresh_params(learner)}, alone.tokens, alone.positions, alone.segment_ids), np.float64)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  chosen = np.take_along_axis(log_probs, alone.targets[..., None], -1)[..., 0][alone.loss_mask]
  assert count == chosen.size
  np.testing.assert_allclose(loss, -chosen.mean(), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('spec, num_micro_batches, chunk_length', [('fsdp=8', 1, 0), ('data=2,fsdp=2,tensor=2', 2, 16)])
def test_eight_devices_learn_like_one(layouts, spec, num_micro_batches, chunk_length):
  expected = one_update(one_device_mesh(), layouts[1])
  assert_same_update(one_update(sharding.make_mesh(spec), layouts[1], num_micro_batches, chunk_length), expected)


# ---- Epochs ---------------------------------------------------------------------------------------


def test_an_epoch_has_every_segment_once_in_rows_that_hold_them():
  rng = np.random.default_rng(1)
  segments = [range(int(n)) for n in (*rng.integers(1, 97, 300), *rng.integers(1, 25, 1200))]
  config = packing.PackingConfig(row_lengths=(24, 48, 96), rows_per_minibatch=4)
  planned = plan_epoch(segments, config, epoch=0, seed=3, multiple=2)
  members = [i for batch in planned for row in batch.rows for i in row]
  assert sorted(members) == list(range(1500))
  for batch in planned:
    assert batch.num_rows == rows_at(config, batch.row_length, 2) and batch.num_rows % 2 == 0
    assert len(batch.rows) <= batch.num_rows
    assert all(sum(len(segments[i]) for i in row) <= batch.row_length for row in batch.rows)
  assert {24, 96} <= {batch.row_length for batch in planned} <= {24, 48, 96}
  filled = sum(map(len, segments)) / sum(batch.num_rows * batch.row_length for batch in planned)
  assert filled > 0.9  # The last mini-batch of the shortest rows alone may stay part empty.
  assert planned == plan_epoch(segments, config, epoch=0, seed=3, multiple=2)
  for other in (dict(epoch=1, seed=3), dict(epoch=0, seed=4)):
    assert planned != plan_epoch(segments, config, multiple=2, **other)


def test_large_sets_are_packed_block_by_block(monkeypatch):
  monkeypatch.setattr('eijax.sft.epochs.BLOCK', 50)
  segments = [range(10)] * 126
  planned = plan_epoch(segments, packing.PackingConfig(row_lengths=(32,), rows_per_minibatch=2), epoch=0, seed=0, multiple=1)
  sizes = [sum(map(len, batch.rows)) for batch in planned]
  assert sum(sizes) == 126 and min(sizes) >= 3  # No last block of a few.


def test_a_few_long_conversations_share_their_update_with_short_ones():
  config = packing.PackingConfig(row_lengths=(10, 40), rows_per_minibatch=4)
  (length, rows), (shorter, others) = packed_by_length([(0, 38), *((i, 8) for i in range(1, 60))], config, 1)
  assert (length, shorter) == (40, 10) and rows[0] == [0] and list(map(len, rows[1:])) == [5, 5, 5]
  assert others == [[i] for i in range(16, 60)]
  assert packed_by_length([(7, 38), (9, 40)], config, 1) == [(40, [[9], [7]])]


def test_rows_of_every_length_are_shared_evenly():
  config = packing.PackingConfig(row_lengths=(100, 300, 1000), rows_per_minibatch=8)
  assert [rows_at(config, length, 8) for length in config.row_lengths] == [80, 24, 8]
