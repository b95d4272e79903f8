"""Sampler against full forward passes, and its promises about seeds, slots and shapes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.learning.sharding import make_mesh
from eijax.policy.config import PolicyConfig
from eijax.policy.decoder import Decoder
from eijax.sampling.choice import choose_tokens, keep_nucleus
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.sampling.sampler import BatchSampler, SampleRequest

VOCAB, STOP = 40, 3
CONFIG = PolicyConfig(vocab_size=VOCAB, num_layers=3, hidden_dim=24, num_heads=4, num_kv_heads=2, head_dim=8,
                      mlp_dim=40, tie_embeddings=True)


@pytest.fixture(scope='module')
def decoder_and_params():
  decoder = Decoder(CONFIG)
  one = jnp.ones((1, 2), jnp.int32)
  params = nn.unbox(decoder.init(jax.random.key(0), one, one, one))['params']
  # Random norm scales: a norm that is left out, or used twice, must show.
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  leaves = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys)]
  return decoder, jax.tree.unflatten(tree, leaves)


def make_sampler(decoder, *, num_slots=4, mesh='', devices=1, **sampling):
  sampling = SamplingConfig(**{'temperature': 0.8, 'max_new_tokens': 6} | sampling)
  shapes = SamplerShapes(num_slots=num_slots, spans=(24, 48), chunks=(4, 16))
  return BatchSampler(decoder, make_mesh(mesh, jax.devices()[:devices]), shapes, sampling, stop_ids=(STOP,),
                      sampleable_ids=range(2, VOCAB))


def requests(lengths, seed=0):
  rng = np.random.default_rng(seed)
  return [SampleRequest(prompt_ids=rng.integers(2, VOCAB, n).astype(np.int32), seed=100 + i, slot_key=f'talk{i}')
          for i, n in enumerate(lengths)]


def results(sampler, reqs):
  return [future.result() for future in sampler.submit(reqs)]


def scored(decoder, params, sample, temperature):
  """Log-probs of the response by one full forward pass."""
  ids = np.concatenate([sample.prompt_ids, sample.response_ids])[None]
  positions = np.arange(ids.shape[1])[None]
  logits = decoder.apply({'params': params}, ids, positions, np.ones_like(ids))
  log_probs = np.asarray(jax.nn.log_softmax(logits / temperature))[0]
  start = len(sample.prompt_ids) - 1
  return log_probs[np.arange(start, ids.shape[1] - 1), sample.response_ids]


def test_log_probs_equal_full_forward(decoder_and_params):
  decoder, params = decoder_and_params
  sampler = make_sampler(decoder)
  sampler.set_params(params)
  for sample in results(sampler, requests([1, 3, 17, 30, 8])):
    # float32 sums in another order over 24-wide layers; logits are of order 1.
    np.testing.assert_allclose(sample.behavior_log_probs, scored(decoder, params, sample, 0.8), atol=2e-5)


def test_growing_prompt_reuses_slot_and_changes_nothing(decoder_and_params):
  decoder, params = decoder_and_params
  sampler, fresh = make_sampler(decoder), make_sampler(decoder)
  sampler.set_params(params)
  first = requests([5, 9, 12])
  samples = results(sampler, first)
  grown = [SampleRequest(prompt_ids=np.concatenate([s.prompt_ids, s.response_ids, [7, 8, 9]]).astype(np.int32),
                         seed=r.seed + 50, slot_key=r.slot_key) for r, s in zip(first, samples)]
  chunks = []
  run = sampler._run_prefill
  sampler._run_prefill = lambda hidden, tokens, *rest: chunks.append(tokens.shape[1]) or run(hidden, tokens, *rest)
  again = results(sampler, grown)
  assert chunks == [4]  # Three new tokens a talk: one short chunk, not the whole prompt.
  fresh.set_params(params)
  for kept, new in zip(again, results(fresh, grown)):
    np.testing.assert_array_equal(kept.response_ids, new.response_ids)
    np.testing.assert_allclose(kept.behavior_log_probs, new.behavior_log_probs, atol=2e-5)


def test_rewritten_history_is_not_reused(decoder_and_params):
  decoder, params = decoder_and_params
  sampler = make_sampler(decoder)
  sampler.set_params(params)
  first, = requests([10])
  results(sampler, [first])
  changed = np.array(first.prompt_ids)
  changed[4] = 2 + (changed[4] - 1) % (VOCAB - 2)
  sample, = results(sampler, [SampleRequest(prompt_ids=changed, seed=9, slot_key=first.slot_key)])
  np.testing.assert_allclose(sample.behavior_log_probs, scored(decoder, params, sample, 0.8), atol=2e-5)


def test_response_depends_on_its_own_seed_only(decoder_and_params):
  decoder, params = decoder_and_params
  reqs = requests([5, 9, 12, 20, 7, 3])
  together, alone = make_sampler(decoder), make_sampler(decoder)
  together.set_params(params)
  alone.set_params(params)
  for request, sample in zip(reqs, results(together, reqs)):
    other, = results(alone, [request])
    np.testing.assert_array_equal(sample.response_ids, other.response_ids)
  changed = SampleRequest(prompt_ids=reqs[3].prompt_ids, seed=1, slot_key='x')
  assert results(alone, [changed])[0].response_ids.tolist() != results(alone, [reqs[3]])[0].response_ids.tolist()


def test_new_params_forget_the_cache(decoder_and_params):
  decoder, params = decoder_and_params
  sampler = make_sampler(decoder)
  sampler.set_params(params)
  reqs = requests([12])
  results(sampler, reqs)
  other = jax.tree.map(lambda x: x * 1.3, params)
  sampler.set_params(other)
  sample, = results(sampler, reqs)
  np.testing.assert_allclose(sample.behavior_log_probs, scored(decoder, other, sample, 0.8), atol=2e-5)


def test_nothing_compiles_after_warm_up(decoder_and_params):
  decoder, params = decoder_and_params
  sampler = make_sampler(decoder)
  sampler.warm_up(params)
  compiled = sampler.num_compilations
  assert compiled == 2 * 2 + 2  # Spans times chunks, and a decode for each span.
  sampler.set_params(params)
  for lengths in ([1], [42, 3], [16, 17, 5, 4, 33]):
    results(sampler, requests(lengths))
  assert sampler.num_compilations == compiled


def test_stop_and_truncation(decoder_and_params):
  decoder, params = decoder_and_params
  sampler = make_sampler(decoder, max_new_tokens=12)
  sampler.set_params(params)
  seen = set()
  for sample in results(sampler, requests([4] * 24)):
    stopped = STOP in sample.response_ids
    assert sample.truncated != stopped
    assert stopped or len(sample.response_ids) == 12
    assert STOP not in sample.response_ids[:-1]
    seen.add(stopped)
  assert seen == {True, False}


def test_eight_devices_equal_one(decoder_and_params):
  decoder, params = decoder_and_params
  reqs = requests([5, 9, 12, 20, 7, 3, 30, 2])
  one = make_sampler(decoder, num_slots=8)
  one.set_params(params)
  many = make_sampler(decoder, num_slots=8, mesh='data=2,fsdp=2,tensor=2', devices=8)
  many.set_params(params)
  for a, b in zip(results(one, reqs), results(many, reqs)):
    np.testing.assert_array_equal(a.response_ids, b.response_ids)
    np.testing.assert_allclose(a.behavior_log_probs, b.behavior_log_probs, atol=2e-5)


def test_choice_follows_the_truncated_distribution():
  logits = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.06, 0.04]]))
  allowed = jnp.array([True, False, True, True, True])
  keys = jax.random.split(jax.random.key(0), 4000)
  config = SamplingConfig(temperature=1.0, top_k=3, top_p=0.9)
  tokens, log_probs = choose_tokens(jnp.repeat(logits, 4000, axis=0), keys, allowed, config)
  # Of 0.4, 0.2, 0.06 (top 3 of the allowed ids) the first two reach 0.9 of 0.66.
  counts = np.bincount(np.asarray(tokens), minlength=5)
  assert counts[1] == counts[3] == counts[4] == 0
  np.testing.assert_allclose(counts[0] / 4000, 2 / 3, atol=0.03)  # Four standard errors.
  np.testing.assert_allclose(np.asarray(log_probs), np.log([0.4, 1, 0.2])[np.asarray(tokens)], rtol=1e-5)


def test_keep_nucleus_by_hand():
  logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]]))
  assert keep_nucleus(logits, 0.8 - 1e-4).tolist() == [[True, True, False, False], [True, False, False, False]]
  assert keep_nucleus(logits, 1.0).all()


@pytest.mark.parametrize('prompt', [[], [VOCAB], [-1], [2] * 43])
def test_bad_prompt_is_refused(decoder_and_params, prompt):
  decoder, params = decoder_and_params
  sampler = make_sampler(decoder)
  sampler.set_params(params)
  with pytest.raises(UsageError):
    sampler.submit([SampleRequest(prompt_ids=np.array(prompt, np.int32), seed=0, slot_key='a')])
