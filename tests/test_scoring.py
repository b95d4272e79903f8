"""Token scores of the policy: chunked equals whole, packed equals unpacked, nothing leaks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eijax.learning import losses, packing, scoring, sharding
from learning_cases import POLICY, batch, segments


@pytest.fixture(scope='module')
def params():
  ones = jnp.ones((1, 2), jnp.int32)
  boxed = POLICY.init(jax.random.key(0), ones, ones, ones)['params']
  # Sharper than a fresh policy, so that entropies and gradients differ from token to token.
  return jax.tree.map(lambda x: 3.0 * x, jax.tree.map(jnp.asarray, boxed))


@pytest.mark.parametrize('chunk_length', [5, 16])
def test_chunked_scores_and_gradients_equal_whole_ones(params, chunk_length):
  packed = batch(rows=4, num=10)
  packed.loss_mask[1] = False  # A row without scored tokens.
  packed.loss_mask[0, :20] = packed.segment_ids[0, :20] > 0  # A row that needs more chunks than the others.
  loss_fn = losses.policy_loss_fn(losses.PolicyLossConfig(entropy_coef=0.5))

  def run(chunk_length):
    score = scoring.make_score_fn(POLICY, temperature=0.7, chunk_length=chunk_length)

    def total(params):
      scores = score(params, packed)
      return loss_fn(scores, packed).loss_sum, scores

    return jax.jit(jax.value_and_grad(total, has_aux=True))(params)

  (loss, scores), grads = run(0)
  (chunked_loss, chunked_scores), chunked_grads = run(chunk_length)
  # The same float32 sums in another order.
  np.testing.assert_allclose(chunked_loss, loss, rtol=1e-5)
  for a, b in zip(chunked_scores, scores):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), chunked_grads, grads)


@pytest.mark.parametrize('spec', ['', 'data=2,fsdp=2,tensor=2', 'fsdp=2,sequence=2,tensor=2'])
def test_terms_and_gradients_of_one_visit_equal_those_of_plain_scores(params, spec):
  packed = batch(num=20)
  loss_fn = losses.policy_loss_fn(losses.PolicyLossConfig(entropy_coef=0.3))
  mesh = sharding.make_mesh(spec, jax.devices() if spec else jax.devices()[:1])

  def run(chunk_length):
    score_fn = scoring.make_score_fn(POLICY, temperature=0.7, chunk_length=chunk_length)

    def loss_sum(params, packed):
      terms = scoring.loss_terms(score_fn, loss_fn, params, packed)
      return 2.0 * terms.loss_sum, terms

    def traced(*arrays):
      with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(sharding.logical_axis_rules()):
        return jax.value_and_grad(loss_sum, has_aux=True)(*arrays)

    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    return jax.device_get(jax.jit(traced)(*jax.device_put((nn.meta.unbox(params), packed), whole)))

  (value, terms), gradients = run(4)
  (plain_value, plain_terms), plain_gradients = run(0)
  np.testing.assert_allclose(value, plain_value, rtol=1e-5)
  # Fractions near 0 are counts of a few tokens, exact.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), terms, plain_terms)
  # The same float32 sums in another order.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(b).max()), gradients, plain_gradients)


def test_packed_scores_equal_unpacked_ones_whatever_the_neighbours_hold(params):
  segs = segments(num=6)
  score = jax.jit(scoring.make_score_fn(POLICY, temperature=0.7))
  together = packing.fill_rows(segs[:3], [[0, 1, 2], [], []], num_rows=3, row_length=48)
  apart = packing.fill_rows(segs[:3], [[0], [1], [2]], num_rows=3, row_length=48)
  # The same middle segment among other neighbours of the same lengths.
  foreign = together._replace(tokens=np.where(together.segment_ids == 2, together.tokens, (together.tokens + 7) % 64))
  one, many, other = (score(params, x).log_probs for x in (together, apart, foreign))
  for i in range(3):
    inside = together.segment_ids[0] == i + 1
    # Attention sums over other masked keys, each an exact zero, in another order.
    np.testing.assert_allclose(one[0][inside], many[i][:len(segs[i])], rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(one[0][together.segment_ids[0] == 2], other[0][together.segment_ids[0] == 2])
