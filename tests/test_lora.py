"""Adapters in the policy and in the learner: what they compute, what is trained, and where it lives."""

import dataclasses

import hf_folders
import hf_policy
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from eijax.errors import UsageError
from eijax.learning import losses, optimizer as optimizer_lib, scoring, sharding, step
from eijax.policy import lora
from eijax.policy.config import LORA_TARGETS, LoraConfig, PolicyConfig
from eijax.policy.decoder import Decoder
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.sampling.sampler import BatchSampler
from learning_cases import CONFIG, Learner, VOCAB, batch
from lora_cases import LORA, adapted, moved, one_device, with_fresh_adapter

FAMILIES = ('qwen3_tied_modern_sharded', 'qwen2', 'llama', 'gemma3_untied_modern_sharded')
POLICY = Decoder(adapted(CONFIG))


def host(tree):
  return jax.tree.map(np.asarray, tree)


def same(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, host(actual), host(expected))


def num_weights(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize('name', FAMILIES)
def test_it_starts_as_the_base_and_merges_into_it(name, tmp_path):
  config, _, base = hf_policy.load(hf_folders.write_folder(tmp_path, hf_folders.CASES[name]))
  prompt = hf_policy.prompts(config.vocab_size, (40,))[0]
  plain = hf_policy.logits(config, base, prompt)
  params = with_fresh_adapter(base, adapted(config))
  np.testing.assert_array_equal(hf_policy.logits(adapted(config), params, prompt), plain)  # B is 0.
  params = moved(params)
  applied = hf_policy.logits(adapted(config), params, prompt)
  scale = np.abs(plain).max()
  assert np.abs(applied - plain).max() > 0.1 * scale
  # Float32, the same sums in another order: the bound that the policies are held to against transformers.
  np.testing.assert_allclose(hf_policy.logits(config, lora.merge(params, adapted(config)), prompt), applied, rtol=0,
                             atol=2e-4 * scale)
  same(lora.base_of(params), base)


def test_targets_pick_the_maps():
  some = adapted(CONFIG, LoraConfig(rank=2, targets=('v_proj', 'down_proj')))
  params = jax.eval_shape(step.params_init(Decoder(some)), jax.random.key(0))
  with_adapter = {name for name, module in params['layers'].items() if 'lora_a' in module}
  assert with_adapter == {'value', 'down'}
  for config in (some, adapted(CONFIG)):
    abstract = jax.eval_shape(step.params_init(Decoder(config)), jax.random.key(0))
    assert num_weights(lora.split(abstract)[0]) == config.num_adapter_params
    assert num_weights(lora.split(abstract)[1]) == config.num_params
  whole = jax.eval_shape(step.params_init(Decoder(CONFIG)), jax.random.key(0))
  assert lora.split(whole)[1] == {} and num_weights(lora.split(whole)[0]) == CONFIG.num_params


def test_it_is_drawn_as_peft_draws_it():
  config = adapted(CONFIG, LoraConfig(rank=64))
  params = with_fresh_adapter(Learner().state.params, config)['layers']
  for name, num_in in (('query', 16), ('out', 32), ('down', 32)):
    a, bound = np.asarray(params[name]['lora_a']), num_in ** -0.5
    assert not np.any(params[name]['lora_b'])
    # Uniform in -bound..bound, whose deviation is bound / sqrt(3); 2,048 draws or more know it to 2 %.
    assert 0.99 * bound < np.abs(a).max() <= bound
    np.testing.assert_allclose(a.std(), bound / 3 ** 0.5, rtol=0.05)
    assert not np.array_equal(a[0], a[1])  # Every layer has its own.


def test_gradients_are_those_of_the_dense_weights():
  """By the chain rule: with W = W0 + s A B, dA = s dW B^T and dB = s A^T dW."""
  params, packed = moved(Learner(policy=POLICY).state.params), batch()
  loss_fn = losses.policy_loss_fn(losses.PolicyLossConfig())

  def gradients(policy, params):
    score = scoring.make_score_fn(policy, temperature=0.7)
    folded = jax.tree.map(lambda x: x[None], packed)
    return host(jax.jit(lambda p: step.accumulate_gradients(score, loss_fn, p, folded)[0])(params))

  found = gradients(POLICY, params)
  assert jax.tree.structure(found) == jax.tree.structure(lora.split(params)[0])
  dense = gradients(Decoder(CONFIG), lora.merge(params, POLICY.config))['layers']
  for name in LORA_TARGETS.values():
    a, b = (np.asarray(params['layers'][name][leaf], np.float64) for leaf in ('lora_a', 'lora_b'))
    d_a, d_b = found['layers'][name]['lora_a'], found['layers'][name]['lora_b']
    d_w = dense[name]['kernel'].astype(np.float64).reshape(2, -1, b[0, 0].size)  # [L, in, out]
    expected_a = LORA.scale * d_w @ b.reshape(2, 3, -1).swapaxes(1, 2)
    expected_b = LORA.scale * a.reshape(2, -1, 3).swapaxes(1, 2) @ d_w
    for actual, expected in ((d_a, expected_a), (d_b, expected_b)):
      # Float32 sums over 100-odd tokens of either sign; a wrong formula misses by its own size.
      np.testing.assert_allclose(actual.reshape(expected.shape), expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_only_the_adapter_learns():
  learner = Learner(policy=POLICY)
  before = host(learner.state.params)
  adam = learner.state.opt_state[1]
  size = POLICY.config.num_adapter_params
  assert num_weights(adam.mu) == num_weights(adam.nu) == size
  # Two moments, the optimizer's count; nothing else.
  assert num_weights(learner.state.opt_state) == 2 * size + 1
  metrics = [learner.run(batch(seed), 2) for seed in range(2)]
  same(lora.base_of(learner.state.params), lora.base_of(before))
  for path, leaf in jax.tree_util.tree_leaves_with_path(lora.split(before)[0]):
    name, part = path[-2].key, path[-1].key
    assert not np.array_equal(learner.state.params['layers'][name][part], leaf), path
  trained = lora.split(learner.state.params)[0]
  np.testing.assert_allclose(
      metrics[-1]['param_norm'], np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(host(trained)))), rtol=1e-5)
  assert learner.update._cache_size() == 1


def test_frozen_weights_pass_through_the_step_in_place():
  learner = Learner(policy=POLICY)
  placed = sharding.put_batch(batch(), learner.mesh, 1)
  memory = learner.update.lower(learner.state, placed, np.float32(1e-2)).compile().memory_analysis()
  assert memory.alias_size_in_bytes >= sum(leaf.nbytes for leaf in jax.tree.leaves(learner.state))
  old = learner.state
  learner.run(batch())
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))


@pytest.mark.slow
@pytest.mark.parametrize('spec', ['fsdp=8', 'data=2,fsdp=2,tensor=2'])
def test_eight_devices_equal_one(spec):
  one, eight = Learner(policy=POLICY), Learner(spec, 8, policy=POLICY)
  same(eight.state.params, one.state.params)
  for seed in range(2):
    expected, actual = one.run(batch(seed), 2), eight.run(batch(seed), 2)
    for name in expected:
      np.testing.assert_allclose(actual[name], expected[name], rtol=1e-3, atol=1e-5, err_msg=f'{name} at {seed}')
  # As of whole policies: where a gradient is near its rounding error, Adam's updates differ by a share of the rate, 0.01.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=3e-4), host(eight.state.params), host(one.state.params))
  same(lora.base_of(eight.state.params), lora.base_of(one.state.params))


def test_the_adapter_is_split_like_its_kernel():
  learner = Learner('data=2,fsdp=2,tensor=2', 8, policy=POLICY)
  specs = jax.tree.map(lambda x: x.sharding.spec, learner.state.params['layers'])
  assert specs['query']['lora_a'] == PartitionSpec(None, 'fsdp', None)
  assert specs['query']['lora_b'] == PartitionSpec(None, None, 'tensor', None)
  assert specs['out']['lora_a'] == PartitionSpec(None, 'tensor', None, None)
  assert specs['down']['lora_a'] == PartitionSpec(None, 'tensor', None)
  assert specs['down']['lora_b'] == PartitionSpec(None, None, 'fsdp')
  base = jax.tree.map(lambda x: x.sharding.spec, Learner('data=2,fsdp=2,tensor=2', 8).state.params)
  assert jax.tree.map(lambda x: x.sharding.spec, lora.base_of(learner.state.params)) == base


@pytest.mark.slow
def test_sampler_and_learner_see_one_policy():
  config = adapted(CONFIG)
  params = moved(Learner(policy=POLICY).state.params, size=0.5)
  sampling = SamplingConfig(temperature=0.7, top_p=1.0, top_k=0, max_new_tokens=8)
  sampler = BatchSampler(POLICY, one_device(), SamplerShapes(num_slots=2, spans=(32,), chunks=(8,)), sampling,
                         stop_ids=(-1,), sampleable_ids=range(VOCAB))
  sampler.set_params(params)
  samples = [future.result() for future in sampler.submit([(range(5), 1, 'a'), (range(9), 2, 'b')])]
  for sample in samples:
    tokens = np.concatenate([sample.prompt_ids, sample.response_ids])[None].astype(np.int32)
    inputs = tokens[:, :-1], np.arange(tokens.shape[1] - 1, dtype=np.int32)[None], np.ones_like(tokens[:, 1:])

    def log_probs(config, params):
      logits = Decoder(config).apply({'params': params}, *inputs)
      scores = losses.token_scores(logits, tokens[:, 1:], np.ones_like(tokens[:, 1:], bool), temperature=0.7)
      return np.asarray(scores.log_probs)[0, len(sample.prompt_ids) - 1:]

    # The same float32 products, with a cache and without.
    np.testing.assert_allclose(sample.behavior_log_probs, log_probs(config, params), rtol=0, atol=2e-5)
    assert np.abs(sample.behavior_log_probs - log_probs(CONFIG, lora.base_of(params))).max() > 0.05


def test_frozen_weights_are_kept_as_they_are_multiplied():
  config = adapted(dataclasses.replace(CONFIG, compute_dtype='bfloat16'))
  mesh, optimizer = one_device(), optimizer_lib.make_optimizer(optimizer_lib.OptimizerConfig())
  abstract = step.abstract_train_state(step.params_init(Decoder(config)), optimizer, mesh)
  for path, leaf in jax.tree_util.tree_leaves_with_path(abstract.params):
    expected = jnp.float32 if path[-1].key in ('scale', 'lora_a', 'lora_b') else jnp.bfloat16
    assert leaf.dtype == expected, path
  assert {leaf.dtype for leaf in jax.tree.leaves(abstract.opt_state)} == {jnp.dtype('float32'), jnp.dtype('int32')}
  # The very policy that float32 weights would give: they are rounded before they are multiplied.
  base = Learner().state.params
  tokens = np.arange(12, dtype=np.int32)[None]
  inputs = tokens, tokens, np.ones_like(tokens)
  whole = dataclasses.replace(config, lora=LoraConfig())
  expected = jax.jit(Decoder(whole).apply)({'params': base}, *inputs)
  frozen = jax.tree.map(lambda x, like: x.astype(like.dtype), base, lora.base_of(abstract.params))
  params = with_fresh_adapter(frozen, config)
  np.testing.assert_array_equal(jax.jit(Decoder(config).apply)({'params': params}, *inputs), expected)


@pytest.mark.parametrize('values, words', [
    (dict(rank=-1), 'lora_rank=-1 must be at least 0'),
    (dict(rank=4, alpha=0.0), 'lora_alpha=0.0 must be a finite number above 0'),
    (dict(rank=4, alpha=float('inf')), 'lora_alpha=inf must be a finite number above 0'),
    (dict(rank=4, targets=('q_proj', 'lm_head')), "lora_targets=q_proj,lm_head: 'lm_head' is unknown; use some of q_proj, k_proj"),
    (dict(rank=4, targets=('q_proj', 'q_proj')), 'every target must be named once'),
    (dict(rank=4, targets=()), 'at least one'),
])
def test_nonsense_is_refused(values, words):
  with pytest.raises(UsageError, match=words):
    LoraConfig(**values)


def test_an_adapter_that_would_lose_its_updates_is_refused():
  policy = Decoder(adapted(PolicyConfig(**{**dataclasses.asdict(CONFIG), 'param_dtype': 'bfloat16', 'lora': LoraConfig()})))
  with pytest.raises(UsageError, match='param_dtype=bfloat16 cannot be trained'):
    step.abstract_train_state(step.params_init(policy), optimizer_lib.make_optimizer(optimizer_lib.OptimizerConfig()), one_device())
