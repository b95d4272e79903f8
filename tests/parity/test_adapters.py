"""Adapters that the learner has trained, loaded by peft; and one of peft's, read here."""

import dataclasses

import hf_folders
import hf_policy
import jax
import numpy as np
import peft
import pytest
import torch
import transformers_policy

from eijax.hf import adapter
from eijax.hf.load import named_leaves
from eijax.learning import losses, optimizer as optimizer_lib, packing, scoring, sharding, step
from eijax.policy import lora
from eijax.policy.config import LoraConfig
from eijax.policy.decoder import Decoder
from eijax.training import policy_source

CASES = ('qwen3', 'qwen3_tied_modern_sharded', 'qwen2', 'qwen2_tied_modern', 'llama', 'llama_tied_modern_sharded', 'gemma3',
         'gemma3_untied_modern_sharded')
NUM_UPDATES = 3


def relative(found, expected):
  return np.abs(found - expected).max() / np.abs(expected).max()


def trained(base, config, mesh):
  """Params after a few supervised updates of the adapter, with a rate that moves the logits."""
  optimizer = optimizer_lib.make_optimizer(optimizer_lib.OptimizerConfig())
  init = step.params_init(Decoder(config))
  abstract = step.abstract_train_state(init, optimizer, mesh)
  params = step.with_fresh_adapter(base, init, abstract.params, jax.random.key(0))
  state = step.train_state_of(params, optimizer, abstract)
  update = step.make_update_step(
      scoring.make_score_fn(Decoder(config), temperature=1.0), losses.supervised_loss_fn, optimizer, mesh,
      step.state_shardings(abstract))
  rng = np.random.default_rng(0)
  demonstrations = [packing.merge_turns([packing.supervised_sample(
      rng.integers(0, config.vocab_size, 8), rng.integers(0, config.vocab_size, 8))])[0] for _ in range(8)]
  batch, = packing.pack_minibatches(demonstrations, packing.PackingConfig(row_lengths=(32,), rows_per_minibatch=4), seed=0)
  for _ in range(NUM_UPDATES):
    state, _ = update(state, sharding.put_batch(batch, mesh, 1), np.float32(0.03))
  return state.params


def write(target, config, params):
  leaves = named_leaves(params)
  adapter.save_adapter(target, config, {name: leaf.shape for name, leaf in leaves.items()}, leaves.__getitem__,
                       dtype='float32', base_name=None)


@pytest.mark.parametrize('name', CASES)
def test_a_trained_adapter_is_the_same_policy_in_peft(name, tmp_path):
  folder = hf_folders.write_folder(tmp_path / 'base', hf_folders.CASES[name])
  config, mesh, base = hf_policy.load(folder, lora=LoraConfig(rank=4, alpha=6.0))
  params = trained(base, config, mesh)
  write(tmp_path / 'adapter', config, params)
  prompts = hf_policy.prompts(config.vocab_size)
  plain = transformers_policy.load(folder)
  before = [transformers_policy.logits(plain, prompt) for prompt in prompts]
  model = peft.PeftModel.from_pretrained(plain, tmp_path / 'adapter').eval()
  for prompt, unadapted in zip(prompts, before):
    expected = transformers_policy.logits(model, prompt)
    assert relative(unadapted, expected) > 0.05  # The adapter says something.
    # Float32 on both sides, summed in other orders: the bound of whole policies.
    assert relative(hf_policy.logits(config, params, prompt), expected) < 2e-4
  merged = model.merge_and_unload()
  prompt = prompts[1]
  whole = dataclasses.replace(config, lora=LoraConfig())
  assert relative(hf_policy.logits(whole, lora.merge(params, config), prompt), transformers_policy.logits(merged, prompt)) < 2e-4


def test_an_adapter_of_peft_is_read(tmp_path):
  """As get_peft_model begins it, with numbers in B, on some of the maps, with a regular expression for names."""
  folder = hf_folders.write_folder(tmp_path / 'base', hf_folders.CASES['llama'])
  torch.manual_seed(0)
  model = peft.get_peft_model(transformers_policy.load(folder), peft.LoraConfig(
      r=5, lora_alpha=8, lora_dropout=0.1, target_modules=r'.*\.(q_proj|up_proj)', task_type='CAUSAL_LM'))
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      if 'lora_B' in name:
        parameter.add_(torch.randn_like(parameter) * 0.2)
  model.save_pretrained(tmp_path / 'adapter')
  found = adapter.read_lora_config(tmp_path / 'adapter')
  assert found == LoraConfig(rank=5, alpha=8.0, targets=('q_proj', 'up_proj'))
  config, mesh, base = hf_policy.load(folder, lora=found)
  abstract = lora.split(policy_source.abstract_params(config, mesh))[0]
  params = lora.join(base, adapter.load_adapter(tmp_path / 'adapter', config, abstract))
  prompt = hf_policy.prompts(config.vocab_size)[1]
  assert relative(hf_policy.logits(config, params, prompt), transformers_policy.logits(model.eval(), prompt)) < 2e-4


def test_it_begins_like_one_of_peft(tmp_path):
  """The same distribution of A: bound and deviation of the drawn numbers."""
  folder = hf_folders.write_folder(tmp_path, hf_folders.CASES['qwen2'])
  torch.manual_seed(0)
  model = peft.get_peft_model(transformers_policy.load(folder), peft.LoraConfig(r=64, target_modules=['down_proj']))
  theirs = np.stack([parameter.detach().numpy() for name, parameter in model.named_parameters() if 'lora_A' in name])
  config, mesh, _ = hf_policy.load(folder, lora=LoraConfig(rank=64, targets=('down_proj',)))
  ours = np.asarray(step.create_train_state(
      step.params_init(Decoder(config)), optimizer_lib.make_optimizer(optimizer_lib.OptimizerConfig()), mesh,
      jax.random.key(0)).params['layers']['down']['lora_a'])
  assert theirs.size == ours.size
  # 8,448 draws: maxima within a fraction of a percent, deviations within two.
  np.testing.assert_allclose(np.abs(ours).max(), np.abs(theirs).max(), rtol=0.01)
  np.testing.assert_allclose(ours.std(), theirs.std(), rtol=0.03)
