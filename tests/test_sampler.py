"""Sampler against full forward passes, and its promises about seeds, slots and shapes."""

import dataclasses

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
CONFIG = PolicyConfig(vocab_size=VOCAB, num_layers=2, hidden_dim=24, num_heads=4, num_kv_heads=2, head_dim=8,
                      mlp_dim=40, tie_embeddings=True)
DECODER = Decoder(CONFIG)
LIMIT = 6
TEMPERATURE = 0.8
# Spans times chunks, and a decode for each span.
NUM_PROGRAMS = 2 * 2 + 2
# float32 sums in another order over 24-wide layers; logits are of order 1.
ATOL = 2e-5


@pytest.fixture(scope='module')
def params():
  one = jnp.ones((1, 2), jnp.int32)
  params = nn.unbox(jax.jit(DECODER.init)(jax.random.key(0), one, one, one))['params']
  # Random norm scales: a norm that is left out, or used twice, must show.
  leaves, tree = jax.tree.flatten(params)
  rng = np.random.default_rng(1)
  return jax.tree.unflatten(tree, [leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def make_sampler(num_slots, mesh='', devices=1):
  shapes = SamplerShapes(num_slots=num_slots, spans=(24, 48), chunks=(4, 16))
  return BatchSampler(
      DECODER, make_mesh(mesh, jax.devices()[:devices]), shapes,
      SamplingConfig(temperature=TEMPERATURE, max_new_tokens=LIMIT), stop_ids=(STOP,), sampleable_ids=range(2, VOCAB))


@pytest.fixture(scope='module')
def warm_sampler(params):
  """One sampler for the whole file: compiling is nearly all of a test's time."""
  sampler = make_sampler(num_slots=4)
  sampler.warm_up(params)
  return sampler


@pytest.fixture
def sampler(warm_sampler, params):
  """The sampler with empty slots."""
  warm_sampler.set_params(params)
  return warm_sampler


def requests(lengths, seed=0):
  rng = np.random.default_rng(seed)
  return [SampleRequest(prompt_ids=rng.integers(2, VOCAB, n).astype(np.int32), seed=100 + i, slot_key=f'talk{i}')
          for i, n in enumerate(lengths)]


def results(sampler, reqs):
  return [future.result() for future in sampler.submit(reqs)]


def grown(request, sample):
  """The next request of a talk: its last sample and three tokens of the user's."""
  ids = np.concatenate([sample.prompt_ids, sample.response_ids, [7, 8, 9]]).astype(np.int32)
  return SampleRequest(prompt_ids=ids, seed=request.seed + 50, slot_key=request.slot_key)


@jax.jit
def full_log_probs(params, ids):
  logits = DECODER.apply({'params': params}, ids, jnp.arange(ids.shape[1])[None], jnp.ones_like(ids))
  return jax.nn.log_softmax(logits / TEMPERATURE)[0]


def scored(params, sample):
  """Log-probs of the response by one full forward pass, padded to one shape."""
  start, end = len(sample.prompt_ids), len(sample.prompt_ids) + len(sample.response_ids)
  ids = np.zeros((1, 48), np.int32)
  ids[0, :end] = np.concatenate([sample.prompt_ids, sample.response_ids])
  return np.asarray(full_log_probs(params, ids))[np.arange(start - 1, end - 1), sample.response_ids]


def test_log_probs_equal_full_forward(sampler, params):
  for sample in results(sampler, requests([1, 3, 17, 30, 8])):
    np.testing.assert_allclose(sample.behavior_log_probs, scored(params, sample), atol=ATOL)


def test_growing_prompt_reuses_slot_and_changes_nothing(sampler, params, monkeypatch):
  first = requests([5, 9, 12])
  second = [grown(*pair) for pair in zip(first, results(sampler, first))]
  chunks = []
  run = sampler._run_prefill
  monkeypatch.setattr(
      sampler, '_run_prefill', lambda hidden, tokens, *rest: chunks.append(tokens.shape[1]) or run(hidden, tokens, *rest))
  again = results(sampler, second)
  assert chunks == [4]  # Three new tokens a talk: one short chunk, not the whole prompt.
  sampler.set_params(params)
  fresh = results(sampler, second)
  assert sum(chunks[1:]) > 4  # With empty slots, the whole prompt.
  for kept, new in zip(again, fresh):
    np.testing.assert_array_equal(kept.response_ids, new.response_ids)
    np.testing.assert_allclose(kept.behavior_log_probs, new.behavior_log_probs, atol=ATOL)


def test_a_talk_that_sat_out_a_batch_keeps_its_slot_unharmed(sampler, params):
  first = requests([14, 9, 12])
  samples = results(sampler, first)
  results(sampler, [grown(first[1], samples[1])])
  # A slot with no room for a row's junk, and idle while another row decodes.
  full, = requests([42], seed=3)
  results(sampler, [full])
  results(sampler, [first[2]])
  for request, sample in zip((first[0], first[2]), (samples[0], samples[2])):
    again, = results(sampler, [grown(request, sample)])
    np.testing.assert_allclose(again.behavior_log_probs, scored(params, again), atol=ATOL)
  again, = results(sampler, [full])
  np.testing.assert_allclose(again.behavior_log_probs, scored(params, again), atol=ATOL)


def test_more_talks_than_slots(sampler, params):
  reqs = requests([5, 9, 12, 14, 7, 3, 11])
  for _ in range(2):
    samples = results(sampler, reqs)
    for request, sample in zip(reqs, samples):
      np.testing.assert_array_equal(sample.prompt_ids, request.prompt_ids)
      np.testing.assert_allclose(sample.behavior_log_probs, scored(params, sample), atol=ATOL)
    reqs = [grown(*pair) for pair in zip(reqs, samples)]


def test_one_key_twice_in_a_call(sampler, params):
  request, = requests([9])
  samples = results(sampler, [request, dataclasses.replace(request, seed=1), request])
  np.testing.assert_array_equal(samples[0].response_ids, samples[2].response_ids)
  assert samples[0].response_ids.tolist() != samples[1].response_ids.tolist()
  for sample in samples:
    np.testing.assert_allclose(sample.behavior_log_probs, scored(params, sample), atol=ATOL)


def test_rewritten_history_is_not_reused(sampler, params):
  first, = requests([10])
  results(sampler, [first])
  changed = np.array(first.prompt_ids)
  changed[4] = 2 + (changed[4] - 1) % (VOCAB - 2)
  sample, = results(sampler, [dataclasses.replace(first, prompt_ids=changed, seed=9)])
  np.testing.assert_allclose(sample.behavior_log_probs, scored(params, sample), atol=ATOL)


def test_response_depends_on_its_own_seed_only(sampler, params):
  reqs = requests([5, 9, 12, 20, 7, 3])
  together = results(sampler, reqs)
  sampler.set_params(params)
  for request, sample in zip(reqs, together):
    other, = results(sampler, [request])
    np.testing.assert_array_equal(sample.response_ids, other.response_ids)
  changed, = results(sampler, [dataclasses.replace(reqs[3], seed=1, slot_key='x')])
  assert changed.response_ids.tolist() != together[3].response_ids.tolist()


def test_plain_tuples_are_requests(sampler):
  request, = requests([8])
  sample, = results(sampler, [(request.prompt_ids.tolist(), request.seed, 'elsewhere')])
  np.testing.assert_array_equal(sample.response_ids, results(sampler, [request])[0].response_ids)


def test_new_params_forget_the_cache(sampler, params):
  reqs = requests([12])
  results(sampler, reqs)
  other = jax.tree.map(lambda x: x * 1.3, params)
  sampler.set_params(other)
  sample, = results(sampler, reqs)
  np.testing.assert_allclose(sample.behavior_log_probs, scored(other, sample), atol=ATOL)


def test_release_frees_the_cache_and_sampling_goes_on_after_it(sampler, params):
  reqs = requests([12])
  before, = results(sampler, reqs)
  sampler.release()
  assert sampler._cache is None and sampler._params is None
  sampler.set_params(params)
  np.testing.assert_array_equal(results(sampler, reqs)[0].response_ids, before.response_ids)


def test_nothing_compiles_after_warm_up(sampler):
  assert sampler.num_compilations == NUM_PROGRAMS
  for lengths in ([1], [42, 3], [16, 17, 5, 4, 33]):
    results(sampler, requests(lengths))
  assert sampler.num_compilations == NUM_PROGRAMS


def test_stop_and_truncation(sampler):
  seen = set()
  for sample in results(sampler, requests([4] * 24)):
    stopped = STOP in sample.response_ids
    assert sample.truncated != stopped
    assert stopped or len(sample.response_ids) == LIMIT
    assert STOP not in sample.response_ids[:-1]
    assert min(sample.response_ids) >= 2  # 0 and 1 may not be sampled.
    seen.add(stopped)
  assert seen == {True, False}


@pytest.mark.parametrize('mesh', ['data=2,fsdp=2,tensor=2', pytest.param('fsdp=4,sequence=2', marks=pytest.mark.slow)])
def test_eight_devices_equal_one(sampler, params, mesh):
  reqs = requests([5, 9, 12, 16, 7, 3, 11, 2])
  many = make_sampler(num_slots=8, mesh=mesh, devices=8)
  many.set_params(params)
  for a, b in zip(results(sampler, reqs), results(many, reqs)):
    np.testing.assert_array_equal(a.response_ids, b.response_ids)
    np.testing.assert_allclose(a.behavior_log_probs, b.behavior_log_probs, atol=ATOL)


def test_slots_that_the_mesh_cannot_split_are_refused():
  with pytest.raises(UsageError, match='num_slots=6 .* use 8'):
    make_sampler(num_slots=6, mesh='data=2,fsdp=2,tensor=2', devices=8)


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
def test_bad_prompt_is_refused(sampler, prompt):
  with pytest.raises(UsageError, match='prompt'):
    sampler.submit([SampleRequest(prompt_ids=np.array(prompt, np.int32), seed=0, slot_key='a')])


@pytest.mark.parametrize('bad', [
    {'temperature': 0.0}, {'temperature': float('nan')}, {'top_p': 0.0}, {'top_p': 1.1}, {'top_k': -1}, {'max_new_tokens': 0}])
def test_bad_sampling_config_is_refused(bad):
  with pytest.raises(UsageError, match=next(iter(bad))):
    SamplingConfig(**bad)


@pytest.mark.parametrize('bad', [{'spans': ()}, {'spans': (48, 24)}, {'chunks': (4, 4)}, {'chunks': (0,)}, {'num_slots': 0}])
def test_bad_shapes_are_refused(bad):
  with pytest.raises(UsageError, match=next(iter(bad))):
    SamplerShapes(**{'num_slots': 4, 'spans': (24, 48), 'chunks': (4, 16)} | bad)
