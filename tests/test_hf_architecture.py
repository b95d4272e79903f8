"""config.json of Hugging Face folders: both styles, documented defaults, refusals by name."""

import dataclasses
import json

import hf_folders
import pytest

from eijax import flags as flags_lib, presets
from eijax.errors import DataError, UsageError
from eijax.hf.architecture import config_values, is_hf_folder, policy_config, read_architecture
from eijax.policy.config import PolicyConfig
from test_flags import build

# As published with the weights, less what does not concern the shapes.
QWEN3_0_6B = dict(
    architectures=['Qwen3ForCausalLM'], attention_bias=False, attention_dropout=0.0, head_dim=128, hidden_act='silu',
    hidden_size=1024, intermediate_size=3072, max_position_embeddings=40960, max_window_layers=28, model_type='qwen3',
    num_attention_heads=16, num_hidden_layers=28, num_key_value_heads=8, rms_norm_eps=1e-06, rope_scaling=None,
    rope_theta=1000000, sliding_window=None, tie_word_embeddings=True, torch_dtype='bfloat16', use_cache=True,
    use_sliding_window=False, vocab_size=151936)
QWEN2_5_7B = dict(
    architectures=['Qwen2ForCausalLM'], attention_dropout=0.0, hidden_act='silu', hidden_size=3584, intermediate_size=18944,
    max_position_embeddings=32768, max_window_layers=28, model_type='qwen2', num_attention_heads=28, num_hidden_layers=28,
    num_key_value_heads=4, rms_norm_eps=1e-06, rope_theta=1000000.0, sliding_window=131072, tie_word_embeddings=False,
    torch_dtype='bfloat16', use_sliding_window=False, vocab_size=152064)
LLAMA_3_2_1B = dict(
    architectures=['LlamaForCausalLM'], attention_bias=False, head_dim=64, hidden_act='silu', hidden_size=2048,
    intermediate_size=8192, max_position_embeddings=131072, mlp_bias=False, model_type='llama', num_attention_heads=32,
    num_hidden_layers=16, num_key_value_heads=8, pretraining_tp=1, rms_norm_eps=1e-05,
    rope_scaling=dict(factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0, original_max_position_embeddings=8192,
                      rope_type='llama3'),
    rope_theta=500000.0, tie_word_embeddings=True, torch_dtype='bfloat16', vocab_size=128256)
GEMMA_3_4B = dict(
    architectures=['Gemma3ForConditionalGeneration'], eos_token_id=[1, 106], image_token_index=262144, model_type='gemma3',
    text_config=dict(hidden_size=2560, intermediate_size=10240, model_type='gemma3_text', num_hidden_layers=34,
                     rope_scaling=dict(factor=8.0, rope_type='linear'), sliding_window=1024),
    torch_dtype='bfloat16', vision_config=dict(hidden_size=1152, model_type='siglip_vision_model'))


@pytest.mark.parametrize('name', hf_folders.CASES)
def test_both_styles_say_the_same(name):
  case = hf_folders.CASES[name]
  first, second = (policy_config(hf_folders.config_json(dataclasses.replace(case, modern=modern, nested=False)), name)
                   for modern in (False, True))
  assert first == second
  assert policy_config(hf_folders.config_json(case), name) == first
  assert (first.tie_embeddings, first.num_layers, first.mlp_dim) == (case.tied, case.config['num_hidden_layers'], 44)


def test_facts_of_each_family():
  read = lambda name: policy_config(hf_folders.config_json(hf_folders.CASES[name]), name)
  shared = dict(vocab_size=61, num_layers=3, hidden_dim=24, num_heads=6, num_kv_heads=2, mlp_dim=44, norm_eps=1e-5)
  assert read('qwen3') == PolicyConfig(**shared, head_dim=10, rope_theta=1e6)
  assert read('qwen2') == PolicyConfig(**shared, head_dim=4, rope_theta=1e5, qkv_bias=True, query_key_norm=False)
  assert read('llama') == PolicyConfig(
      **shared, head_dim=14, rope_theta=5e5, query_key_norm=False, rope_scaling='llama3', rope_factor=8.0,
      rope_low_turns=1.0, rope_high_turns=4.0, rope_original_length=64)
  assert read('gemma3') == PolicyConfig(
      **shared | dict(num_layers=8), head_dim=12, tie_embeddings=True, activation='gelu_tanh', norm_offset=1.0, branch_norms=True,
      embedding_scale=24**0.5, attention_scale=19**-0.5, rope_theta=1e6, rope_scaling='linear', rope_factor=8.0,
      local_layers=(0, 1, 3, 4, 6, 7), window=7, local_rope_theta=1e3)


def test_published_configs():
  small = policy_config(QWEN3_0_6B, 'a')
  assert small == dataclasses.replace(presets.qwen3_0_6b().policy, compute_dtype='float32', remat='none')
  # Numbers of parameters as published: 7.62B, 1.24B, and 3.88B of the text part.
  assert policy_config(QWEN2_5_7B, 'b').num_params == pytest.approx(7.616e9, rel=1e-3)
  assert policy_config(LLAMA_3_2_1B, 'c').num_params == pytest.approx(1.236e9, rel=1e-3)
  gemma = policy_config(GEMMA_3_4B, 'd')
  assert gemma.num_params == pytest.approx(3.88e9, rel=1e-3)
  assert (gemma.num_heads, gemma.num_kv_heads, gemma.head_dim, gemma.vocab_size) == (8, 4, 256, 262208)
  assert [i for i in range(34) if i not in gemma.local_layers] == [5, 11, 17, 23, 29]


@pytest.mark.parametrize('name', hf_folders.CASES)
def test_a_config_goes_out_as_it_came_in(name):
  config = policy_config(hf_folders.config_json(hf_folders.CASES[name]), name)
  run = dataclasses.replace(config, compute_dtype='bfloat16', remat='full')
  values = json.loads(json.dumps(config_values(run)))
  assert policy_config(values, name) == config
  assert values['model_type'] == hf_folders.CASES[name].kind


def test_an_architecture_that_no_model_type_has():
  with pytest.raises(UsageError, match='no Hugging Face model type has this architecture'):
    config_values(dataclasses.replace(presets.demo().policy, branch_norms=True))


def changed(name, **changes):
  values = hf_folders.config_json(hf_folders.CASES[name]) | changes
  return {key: value for key, value in values.items() if value != 'absent'}


@pytest.mark.parametrize('name, changes, message', [
    ('qwen3', dict(model_type='qwen3_moe'), "model_type='qwen3_moe' is not supported; use a model of type qwen3, qwen2, llama"),
    ('qwen3', dict(model_type='absent'), 'must be an object with a `model_type`'),
    ('qwen3', dict(architectures=['Qwen3ForSequenceClassification']), "ForSequenceClassification'\\] is not supported"),
    ('qwen3', dict(num_experts=8), 'num_experts=8 is not supported; it must be None or absent'),
    ('qwen3', dict(use_sliding_window=True), 'use_sliding_window=True is not supported'),
    ('qwen3', dict(layer_types=['full_attention', 'sliding_attention', 'full_attention']), "layer_types names \\['sliding_attention'\\]"),
    ('qwen3', dict(attention_bias=True), 'attention_bias=True is not supported'),
    ('qwen3', dict(quantization_config={'quant_method': 'fp8'}), "quantization_config='fp8' is not supported"),
    ('qwen3', dict(hidden_act='gelu'), "hidden_act='gelu' is not supported for qwen3; it must be 'silu'"),
    ('qwen3', dict(rope_scaling={'rope_type': 'yarn', 'factor': 4.0}), "rope_type='yarn' is not supported; use one of default, linear, llama3"),
    ('qwen3', dict(rope_scaling={'type': 'dynamic', 'factor': 4.0}), "rope_type='dynamic' is not supported"),
    ('qwen3', dict(head_dim=None), 'head_dim=None must be a positive integer'),
    ('qwen3', dict(head_dim=7), 'head_dim=7 must be even'),
    ('qwen3', dict(num_hidden_layers='3'), "num_hidden_layers='3' must be a positive integer"),
    ('qwen3', dict(rms_norm_eps=float('nan')), 'rms_norm_eps=nan must be a positive number'),
    ('qwen3', dict(tie_word_embeddings='yes'), "tie_word_embeddings='yes' must be true or false"),
    ('qwen3', dict(num_key_value_heads=4), 'num_heads=6 must be a multiple of num_kv_heads=4'),
    ('llama', dict(mlp_bias=True), 'mlp_bias=True is not supported'),
    ('llama', dict(rope_scaling={'rope_type': 'llama3', 'factor': 8.0}), 'needs low_freq_factor, high_freq_factor beside it'),
    ('llama', dict(partial_rotary_factor=0.5), 'partial_rotary_factor=0.5 is not supported'),
    ('gemma3', dict(attn_logit_softcapping=50.0), 'attn_logit_softcapping=50.0 is not supported; it must be None'),
    ('gemma3', dict(use_bidirectional_attention=True), 'use_bidirectional_attention=True is not supported'),
    ('gemma3', dict(layer_types=['full_attention']), 'must say full_attention or sliding_attention for each of the 8 layers'),
    ('gemma3', dict(sliding_window=None), 'sliding_window=None must be a positive integer'),
])
def test_what_is_not_supported_is_refused_by_name(tmp_path, name, changes, message):
  (tmp_path / 'config.json').write_text(json.dumps(changed(name, **changes)))
  with pytest.raises(DataError, match=f'config.json: .*{message}') as caught:
    read_architecture(tmp_path)
  assert '\n' not in str(caught.value)


def test_what_changes_nothing_is_accepted():
  plain = policy_config(hf_folders.config_json(hf_folders.CASES['qwen3']), 'a')
  neutral = dict(attention_dropout=0.0, use_sliding_window=False, sliding_window=4096, num_experts=None, attention_bias='absent')
  assert policy_config(changed('qwen3', **neutral), 'a') == plain


def test_a_folder_chooses_shapes_and_recipe(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps(QWEN2_5_7B))
  policy = policy_config(QWEN2_5_7B, 'b')
  config = build(f'--policy={tmp_path}')
  # The nearest recipe, run as its own policy is; flags go before it.
  assert config.preset == 'qwen3_8b' and config.policy_source == str(tmp_path)
  assert config.policy == dataclasses.replace(policy, compute_dtype='bfloat16', remat='full')
  assert dataclasses.replace(config, policy=presets.qwen3_8b().policy, policy_source='') == presets.qwen3_8b()
  named = build(f'--policy={tmp_path}', '--preset=demo', '--compute_dtype=bfloat16', '--num_steps=3')
  assert (named.preset, named.warmup, named.num_steps) == ('demo', None, 3)
  assert named.policy == dataclasses.replace(policy, compute_dtype='bfloat16', scan_unroll=4)
  assert flags_lib.value_at(named, 'sampler.spans') == presets.demo().sampler.spans


@pytest.mark.parametrize('name', ('qwen3_0_6b', 'qwen3_1_7b', 'qwen3_4b', 'qwen3_8b', 'qwen3_14b', 'qwen3_32b'))
def test_a_preset_is_nearest_to_itself(name):
  assert presets.nearest(presets.get(name).policy) == name


def test_which_folders_are_hugging_faces(tmp_path):
  assert not is_hf_folder(tmp_path) and not is_hf_folder('nowhere')
  (tmp_path / 'config.json').write_text('{"preset": "demo"}')  # That of a run.
  assert not is_hf_folder(tmp_path)
  (tmp_path / 'config.json').write_text('{"model_type": "bert"}')
  assert is_hf_folder(tmp_path)
