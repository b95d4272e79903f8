"""Packing: lockstep arrays, first-fit decreasing, exact merging, mini-batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eijax.learning import losses, packing, scoring
from eijax.policy.config import PolicyConfig
from eijax.policy.decoder import Decoder

VOCAB = 32


def sample(prompt, response, advantage=1.0, log_prob=-2.0):
  return packing.TurnSample(
      prompt_ids=np.array(prompt, np.int32), response_ids=np.array(response, np.int32),
      behavior_log_probs=np.full(len(response), log_prob, np.float32), advantage=advantage)


def segment(length, fill=1):
  return packing.merge_turns([sample([fill] * (length - 1), [fill, fill])])[0]


def talk(rng, num_turns):
  """Turns whose prompts continue the responses, with random advantages and log-probs."""
  ids, turns = list(rng.integers(0, VOCAB, 4)), []
  for _ in range(num_turns):
    response = rng.integers(0, VOCAB, rng.integers(1, 4))
    turns.append(packing.TurnSample(
        prompt_ids=np.array(ids), response_ids=response, advantage=float(rng.normal()),
        behavior_log_probs=rng.normal(-3.4, 0.2, len(response)).astype(np.float32)))
    ids += [*response, *rng.integers(0, VOCAB, 2)]
  return turns


def test_a_segment_is_target_aligned():
  seg, = packing.merge_turns([sample([5, 6, 7], [8, 9], advantage=0.5)])
  assert seg.tokens.tolist() == [5, 6, 7, 8]
  assert seg.targets.tolist() == [6, 7, 8, 9]
  assert seg.loss_mask.tolist() == [False, False, True, True]
  assert seg.advantages.tolist() == [0, 0, 0.5, 0.5]
  assert seg.behavior_log_probs.tolist() == [0, 0, -2, -2]


def test_turns_merge_where_the_next_prompt_continues_the_last_response():
  segs = packing.merge_turns([
      sample([1, 2], [3, 4], advantage=0.5, log_prob=-1.0),
      sample([1, 2, 3, 4, 5], [6], advantage=-0.5, log_prob=-3.0)])
  assert len(segs) == 1
  assert segs[0].targets.tolist() == [2, 3, 4, 5, 6]
  assert segs[0].loss_mask.tolist() == [False, True, True, False, True]
  assert segs[0].advantages.tolist() == [0, 0.5, 0.5, 0, -0.5]
  assert segs[0].behavior_log_probs.tolist() == [0, -1, -1, 0, -3]


@pytest.mark.parametrize('second', [
    [1, 2, 3, 9, 5],  # The response was changed (a thought was stripped).
    [1, 7, 3, 4, 5],  # The prompt was changed.
    [1, 2, 3],  # The response was cut.
])
def test_turns_that_do_not_continue_stay_apart(second):
  segs = packing.merge_turns([sample([1, 2], [3, 4]), sample(second, [6])])
  assert [s.targets[-1] for s in segs] == [4, 6]
  assert [len(s) for s in segs] == [3, len(second)]


def test_a_merged_segment_respects_the_maximum_length():
  turns = talk(np.random.default_rng(0), 4)
  whole, = packing.merge_turns(turns)
  parts = packing.merge_turns(turns, max_length=len(whole) - 1)
  assert len(parts) == 2 and max(map(len, parts)) < len(whole) + 1
  assert sum(p.loss_mask.sum() for p in parts) == whole.loss_mask.sum()


def test_merged_turns_have_the_loss_and_gradient_of_separate_ones():
  config = PolicyConfig(
      vocab_size=VOCAB, num_layers=2, hidden_dim=16, num_heads=2, num_kv_heads=1, head_dim=8, mlp_dim=16)
  policy = Decoder(config)
  ones = jnp.ones((1, 2), jnp.int32)
  params = jax.tree.map(jnp.asarray, policy.init(jax.random.key(0), ones, ones, ones)['params'])
  score = scoring.make_score_fn(policy, temperature=0.7)
  loss_fn = losses.policy_loss_fn(losses.PolicyLossConfig())
  rng = np.random.default_rng(1)
  talks = [talk(rng, 3), talk(rng, 2)]
  # One layout has a row per turn, the other packs whole talks into one row; the same call compiles for both.
  apart = [packing.merge_turns([turn])[0] for turns in talks for turn in turns]
  merged = [seg for turns in talks for seg in packing.merge_turns(turns)]
  assert len(apart) == 5 and len(merged) == 2

  def total(params, batch):
    terms = loss_fn(score(params, batch), batch)
    return terms.loss_sum, terms.count

  results = []
  for segs, rows in ((apart, [[i] for i in range(5)]), (merged, [[0, 1], [], [], [], []])):
    batch = packing.fill_rows(segs, rows, num_rows=5, row_length=40)
    results.append(jax.jit(jax.value_and_grad(total, has_aux=True))(params, batch))
  (loss, count), grads = results[0]
  (merged_loss, merged_count), merged_grads = results[1]
  assert count == merged_count == sum(len(t.response_ids) for turns in talks for t in turns)
  # Float32 sums over other rows in another order: a few times 2**-24 of the largest term.
  np.testing.assert_allclose(merged_loss, loss, rtol=2e-5, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5), merged_grads, grads)


def test_first_fit_decreasing_by_hand():
  # Sorted: 7, 5, 4, 4, 2, 1 in rows of 10 -> [7, 2, 1], [5, 4], [4].
  assert packing.assign_rows([4, 7, 1, 5, 4, 2], 10) == [[1, 5, 2], [3, 0], [4]]
  assert packing.assign_rows([], 10) == []


def test_rows_hold_segments_positions_and_padding():
  batch = packing.fill_rows([segment(3, fill=4), segment(2, fill=5)], [[0, 1]], num_rows=2, row_length=7)
  assert batch.tokens[0].tolist() == [4, 4, 4, 5, 5, 0, 0]
  assert batch.positions[0].tolist() == [0, 1, 2, 0, 1, 0, 0]
  assert batch.segment_ids[0].tolist() == [1, 1, 1, 2, 2, 0, 0]
  assert batch.loss_mask[0].tolist() == [False, True, True, True, True, False, False]
  assert not batch.segment_ids[1].any() and not batch.loss_mask[1].any()
  assert [x.dtype.name for x in batch] == ['int32'] * 4 + ['bool'] + ['float32'] * 2


def test_minibatches_hold_every_token_once_and_are_deterministic():
  rng = np.random.default_rng(0)
  segments = [segment(int(n), fill=i + 1) for i, n in enumerate(rng.integers(2, 20, 50))]
  config = packing.PackingConfig(row_lengths=(8, 32, 64), rows_per_minibatch=8, num_minibatches=4)
  batches = packing.pack_minibatches(segments, config, seed=3)
  assert len(batches) == 4 and {b.tokens.shape for b in batches} == {(8, 32)}
  counts = sum(np.bincount(b.tokens.ravel(), minlength=51) for b in batches)
  assert counts[1:].tolist() == [len(s) for s in segments]
  per_batch = [len(np.unique(b.tokens[b.segment_ids > 0])) for b in batches]
  assert max(per_batch) - min(per_batch) <= 1
  again = packing.pack_minibatches(segments, config, seed=3)
  assert all(np.array_equal(x, y) for a, b in zip(batches, again) for x, y in zip(a, b))
  other = packing.pack_minibatches(segments, config, seed=4)
  assert any(not np.array_equal(a.tokens, b.tokens) for a, b in zip(batches, other))


def test_more_rows_than_fit_take_more_minibatches_and_fewer_segments_fewer():
  config = packing.PackingConfig(row_lengths=(10,), rows_per_minibatch=2, num_minibatches=2)
  batches = packing.pack_minibatches([segment(10, fill=i + 1) for i in range(9)], config, seed=0)
  assert len(batches) == 5 and all(b.tokens.shape == (2, 10) and b.loss_mask.any() for b in batches)
  assert len(packing.pack_minibatches([segment(4)], config, seed=0)) == 1
  # A host with one segment joins the two updates and longer rows that the others need.
  agreed = packing.pack_minibatches([segment(4)], config, seed=0, num_minibatches=2, row_length=12)
  assert [b.tokens.shape for b in agreed] == [(2, 12)] * 2
  assert sorted(int(b.loss_mask.sum()) for b in agreed) == [0, 2]


def test_bad_samples_and_segments_are_refused():
  config = packing.PackingConfig(row_lengths=(8, 16), rows_per_minibatch=2)
  with pytest.raises(packing.SegmentTooLongError, match='segment of 17 positions .*=16; raise row_lengths'):
    packing.pack_minibatches([segment(17)], config, seed=0)
  with pytest.raises(ValueError, match='at least one segment'):
    packing.pack_minibatches([], config, seed=0)
  with pytest.raises(ValueError, match='needs a prompt and a response'):
    sample([1], [])
  with pytest.raises(ValueError, match='recorded in lockstep'):
    packing.TurnSample(prompt_ids=np.ones(1), response_ids=np.ones(2), behavior_log_probs=np.ones(1), advantage=0.0)
  with pytest.raises(ValueError, match='must be positive and ascending'):
    packing.PackingConfig(row_lengths=(16, 8), rows_per_minibatch=2)


def test_balanced_rows_cost_alike_within_a_micro_batch_and_over_shards():
  rng = np.random.default_rng(0)
  rows, length = 24, 16
  lengths = np.concatenate([rng.integers(1, length + 1, 20), np.zeros(4, int)])  # Four rows are unused.
  scored = np.arange(length)[None] < rng.permutation(lengths)[:, None]
  batch = packing.fill_rows([], [], num_rows=rows, row_length=length)
  batch = batch._replace(loss_mask=scored, segment_ids=scored.astype(np.int32),
                         tokens=np.tile(np.arange(rows, dtype=np.int32)[:, None], (1, length)))
  balanced = packing.balance_rows(batch, num_micro_batches=3, num_shards=4)
  order = balanced.tokens[:, 0]
  assert sorted(order) == list(range(rows))
  for before, after in zip(batch, balanced):
    np.testing.assert_array_equal(after, before[order])  # Whole rows move, all arrays alike.
  costs = balanced.loss_mask.sum(1).reshape(3, 4, 2)  # Micro-batch, shard, row.
  assert (costs[:-1].min(axis=(1, 2)) >= costs[1:].max(axis=(1, 2))).all()  # The costliest micro-batch comes first.
  plain = batch.loss_mask.sum(1).reshape(3, 4, 2).sum(2).max(1).sum()
  # What devices wait for: the costliest shard of each micro-batch. Dealt evenly, it is close to the mean.
  assert costs.sum(2).max(1).sum() < min(plain, 1.15 * costs.sum() / 4)
