"""Architectures, logits, continuations and exported folders against transformers."""

import dataclasses
import json

import hf_folders
import hf_policy
import jax
import numpy as np
import pytest
import torch
import transformers
import transformers_policy

from eijax.hf import architecture, load, save

TEXT_ONLY = [name for name, case in hf_folders.CASES.items() if not case.nested]
# One of each family.
FAMILIES = ('qwen3', 'qwen2', 'llama', 'gemma3')


@pytest.fixture(name='folder_of', scope='module')
def fixture_folder_of(tmp_path_factory):
  made = {}

  def folder(name, dtype='float32'):
    if (name, dtype) not in made:
      made[name, dtype] = hf_folders.write_folder(
          tmp_path_factory.mktemp(name), hf_folders.CASES[name], dtype=dtype)
    return made[name, dtype]

  return folder


def relative(found, expected):
  """Largest difference against the scale of the logits."""
  return np.abs(found - expected).max() / np.abs(expected).max()


def rms(x):
  return np.sqrt(np.mean(np.square(x)))


@pytest.mark.parametrize('name', TEXT_ONLY)
def test_logits_and_continuations(name, folder_of):
  folder = folder_of(name)
  config, mesh, params = hf_policy.load(folder)
  model = transformers_policy.load(folder)
  prompts = hf_policy.prompts(config.vocab_size)
  for prompt in prompts:
    expected = transformers_policy.logits(model, prompt)
    assert expected.std() > 0.5  # Something to compare.
    # Float32 on both sides, summed in other orders.
    assert relative(hf_policy.logits(config, params, prompt), expected) < 2e-4
  expected = [transformers_policy.greedy(model, prompt, hf_policy.NUM_NEW) for prompt in prompts]
  assert hf_policy.greedy(config, mesh, params, prompts) == expected


@pytest.mark.parametrize('name', FAMILIES)
def test_bfloat16_is_as_near_as_transformers_own(name, folder_of):
  """Against the float32 logits of the same weights: no further than transformers' two attentions are from each other.

  (Two implementations that round independently differ by more than each errs; so do these two.)
  """
  folder = folder_of(name, 'bfloat16')
  config, _, params = hf_policy.load(folder, compute_dtype='bfloat16')
  models = [transformers_policy.load(folder, *how) for how in
            (('float32', 'eager'), ('bfloat16', 'eager'), ('bfloat16', 'sdpa'))]
  prompts = hf_policy.prompts(config.vocab_size)
  exact, eager, sdpa = (np.concatenate([transformers_policy.logits(model, prompt) for prompt in prompts]) for model in models)
  ours = np.concatenate([hf_policy.logits(config, params, prompt) for prompt in prompts])
  assert rms(ours - exact) <= max(rms(eager - sdpa), rms(eager - exact), rms(sdpa - exact))


@pytest.mark.parametrize('name', FAMILIES)
def test_an_exported_folder_is_the_same_model(name, folder_of, tmp_path):
  """Of params that no folder held: logits of the export equal ours. With the config of the source, and without."""
  config, _, params = hf_policy.load(folder_of(name))
  moved = jax.tree.map(lambda x: x * 1.01, params)
  prompt = hf_policy.prompts(config.vocab_size)[1]
  ours = hf_policy.logits(config, moved, prompt)
  leaves = load.named_leaves(moved)
  for number, source in enumerate((folder_of(name) / 'config.json', None)):
    target = tmp_path / str(number)
    save.save_folder(target, config, {key: leaf.shape for key, leaf in leaves.items()}, leaves.__getitem__,
                     dtype='float32', max_shard_bytes=20_000, source_config=source)
    assert len(list(target.glob('*.safetensors'))) > 1
    assert relative(transformers_policy.logits(transformers_policy.load(target), prompt), ours) < 2e-4


def test_absent_values_have_the_documented_defaults():
  classes = {'qwen3': transformers.Qwen3Config, 'qwen2': transformers.Qwen2Config, 'llama': transformers.LlamaConfig,
             'gemma3_text': transformers.Gemma3TextConfig}
  for kind, config_class in classes.items():
    whole = json.loads(json.dumps(config_class().to_dict()))
    ours = architecture.policy_config({'model_type': kind}, kind)
    assert architecture.policy_config(whole | {'architectures': None}, kind) == ours, kind
    # And the shapes of the model that transformers makes of them, in two layers.
    config = config_class(num_hidden_layers=2)
    with torch.device('meta'):
      model = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in model.parameters()) == dataclasses.replace(
        ours, num_layers=2, local_layers=tuple(i for i in ours.local_layers if i < 2)).num_params


def test_a_saved_model_with_a_vision_tower(tmp_path):
  """As transformers saves it today: names, prefixes and config of the whole model, of which we read the text part."""
  case = hf_folders.CASES['gemma3_untied_modern_sharded']
  text = transformers.Gemma3TextConfig(**{k: v for k, v in hf_folders.config_json(case).items()
                                          if k not in ('architectures', 'model_type', 'dtype', 'tie_word_embeddings')})
  vision = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
  torch.manual_seed(0)
  model = transformers.Gemma3ForConditionalGeneration(transformers.Gemma3Config(
      text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=60)).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(torch.randn_like(parameter) * 0.1)
  model.save_pretrained(tmp_path)
  config, _, params = hf_policy.load(tmp_path)
  prompt = hf_policy.prompts(50)[1]
  expected = transformers_policy.logits(model, prompt)
  assert relative(hf_policy.logits(config, params, prompt), expected) < 2e-4
