"""Flags and presets: every flag reaches its one value, every value has a way in, nonsense is refused by name."""

import dataclasses
import math

from absl import flags
import flax.linen as nn
import jax
import pytest

from eijax import flags as flags_lib, presets
from eijax.config import RunConfig
from eijax.errors import UsageError
from eijax.learning import step
from eijax.learning.advantages import ALGORITHMS
from eijax.policy.decoder import Decoder
from eijax.settings import differences, to_plain

# Values of a config that no flag sets by itself, and why.
WITHOUT_FLAG = {
    'preset': 'is --preset',
    'policy_source': 'is --policy',
    'advantages.centred': 'fixed by the name of the algorithm',
    'advantages.group_by': 'fixed by the name of the algorithm',
    **{f'policy.{name}': 'a fact of published weights, read from their folder' for name in (
        'activation', 'qkv_bias', 'query_key_norm', 'norm_offset', 'branch_norms', 'embedding_scale', 'attention_scale',
        'rope_scaling', 'rope_factor', 'rope_low_turns', 'rope_high_turns', 'rope_original_length', 'local_layers',
        'window', 'local_rope_theta')},
    'warmup.packing.num_minibatches': 'worked out from the corpus',
    **{f'warmup.optimizer.{name}': 'the defaults serve a few dozen supervised updates' for name in (
        'warmup_fraction', 'final_fraction', 'beta1', 'beta2', 'epsilon', 'weight_decay', 'max_grad_norm')},
}

# Where twice or half the demo's value would be no valid other value.
OTHER_VALUES = {
    'algorithm': 'ctc_grpo_uncentred', 'scenarios': 'elsewhere', 'mesh': 'data=2',
    'simulator_url': 'http://127.0.0.1:8000/v1, http://127.0.0.1:8001/v1', 'simulator_model': 'another',
    'spans': '256,640', 'chunks': '32,128', 'row_lengths': '896,1024', 'warmup_row_lengths': '1000',
    'param_dtype': 'bfloat16', 'compute_dtype': 'bfloat16', 'remat': 'full',
    'lora_targets': 'q_proj,v_proj', 'simulator_thinking': 'off', 'simulator_extra_body': '{"top_p": 0.9}',
}


def build(*arguments: str) -> RunConfig:
  values = flags.FlagValues()
  flags_lib.define(values)
  values(['train', *arguments])
  return flags_lib.build_config(values)


def leaves(value, path=''):
  """Dotted path of every value that is no dataclass."""
  if not dataclasses.is_dataclass(value):
    return [path]
  return [leaf for field in dataclasses.fields(value)
          for leaf in leaves(getattr(value, field.name), f'{path}.{field.name}' if path else field.name)]


def other_value(name: str) -> str:
  value = flags_lib.value_at(presets.demo(), flags_lib.OVERRIDES[name][0])
  if name in OTHER_VALUES:
    return OTHER_VALUES[name]
  if isinstance(value, bool):
    return str(not value).lower()
  return str(2 * value or 1) if isinstance(value, int) else str(value / 2 or 0.25)


@pytest.mark.parametrize('name', flags_lib.OVERRIDES)
def test_a_flag_changes_its_value_and_no_other(name):
  changed = differences(to_plain(presets.demo()), to_plain(build(f'--{name}={other_value(name)}')))
  expected = {flags_lib.OVERRIDES[name][0]}
  if name == 'algorithm':
    expected.add('advantages.centred')
  assert {path for path, _, _ in changed} == expected


def test_every_value_has_a_flag():
  paths = [path for path, _ in flags_lib.OVERRIDES.values()]
  assert len(set(paths)) == len(paths)
  assert {*paths, *WITHOUT_FLAG} == set(leaves(presets.demo()))
  assert not set(paths) & set(WITHOUT_FLAG)


def test_without_flags_a_config_is_that_of_the_preset():
  for name, preset in presets.PRESETS.items():
    assert build(f'--preset={name}') == preset()


def test_lists_are_read_item_by_item():
  config = build('--spans=128,512', '--simulator_url=http://a:1/v1, http://b:2/v1,')
  assert config.sampler.spans == (128, 512)
  assert config.simulator.urls == ('http://a:1/v1', 'http://b:2/v1')


def test_values_that_bound_each_other_change_together():
  # One after the other, each of these would break a rule on the way.
  config = build('--max_new_tokens=1000', '--spans=512,2048', '--num_heads=3', '--num_kv_heads=3')
  assert (config.sampling.max_new_tokens, config.sampler.max_tokens) == (1000, 2048)
  assert config.packing.row_lengths == (2048,)  # Follows the context, which it has to hold.
  config = build('--spans=128', '--row_lengths=128', '--max_new_tokens=16')
  assert (config.sampler.max_tokens, config.packing.row_lengths) == (128, (128,))


def test_policy_names_a_preset_or_a_folder():
  config = build('--policy=qwen3_8b', '--num_layers=2')
  assert config.policy == dataclasses.replace(presets.qwen3_8b().policy, num_layers=2)
  assert (config.preset, config.warmup, config.policy_source) == ('demo', None, '')
  assert build('--policy=runs/a').policy_source == 'runs/a'


@pytest.mark.parametrize('algorithm', ALGORITHMS)
def test_algorithms(algorithm):
  advantages = build(f'--algorithm={algorithm}', '--alpha=0' if algorithm == 'grpo' else '--alpha=3').advantages
  assert advantages.alpha == (0 if algorithm == 'grpo' else 3)
  assert advantages.centred == (algorithm != 'ctc_grpo_uncentred')
  assert advantages.sigma_min == (0 if algorithm == 'ctc_grpo_no_sigma_min' else 0.1)
  assert advantages.group_by == ('scene' if algorithm == 'ctc_grpo_scene_groups' else 'scenario')
  demo = presets.demo().advantages
  assert build(f'--algorithm={algorithm}').advantages.alpha == (0 if algorithm == 'grpo' else demo.alpha)
  assert build('--preset=qwen3_8b').advantages.alpha == 15 != demo.alpha


@pytest.mark.parametrize('arguments, words', [
    (['--preset=gpt'], ["preset='gpt'", *presets.PRESETS]),
    (['--algorithm=ppo'], ["algorithm='ppo'", *ALGORITHMS]),
    (['--algorithm=grpo', '--alpha=3'], ['alpha=3.0 contradicts', 'alpha=0.0', 'ctc_grpo']),
    (['--algorithm=ctc_grpo_no_sigma_min', '--sigma_min=0.2'], ['sigma_min=0.2 contradicts']),
    (['--spans=512,many'], ['--spans=512,many', 'integers', ','.join(map(str, presets.get('demo').sampler.spans))]),
    (['--spans='], ['spans=', 'positive and ascending']),
    (['--row_lengths=512'], ['row_lengths=(512,)', '896']),
    (['--max_new_tokens=896'], ['max_new_tokens=896', 'below the context']),
    (['--num_heads=3', '--num_kv_heads=2'], ['num_heads=3', 'multiple of num_kv_heads=2']),
    (['--remat=some'], ["remat='some'", 'none, full, dots']),
    (['--compute_dtype=float16'], ['float32, bfloat16']),
    (['--parse_penalty=3'], ['parse_penalty=3.0', '0..2']),
    (['--lora_rank=-1'], ['lora_rank=-1', 'at least 0']),
    (['--lora_alpha=0'], ['lora_alpha=0.0', 'above 0']),
    (['--lora_targets=q_proj,qkv'], ["'qkv' is unknown", 'q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj']),
    (['--lora_targets=q_proj,q_proj'], ['lora_targets=q_proj,q_proj', 'once']),
    (['--lora_targets='], ['lora_targets=', 'at least one']),
    (['--rope_theta=-1'], ['rope_theta=-1.0', 'above 0']),
    (['--preset=qwen3_8b', '--warmup_talks=3'], ['warmup.num_talks', 'no warmup']),
])
def test_nonsense_is_refused_by_name(arguments, words):
  with pytest.raises(UsageError) as caught:
    build(*arguments)
  for word in words:
    assert word in str(caught.value)


@pytest.mark.parametrize('text', ('nan', 'inf'))
def test_numbers_are_finite(text):
  demo = presets.demo()
  for name, (path, _) in flags_lib.OVERRIDES.items():
    if isinstance(flags_lib.value_at(demo, path), float):
      with pytest.raises(UsageError, match=f'--{name}={text} must be a finite number'):
        build(f'--{name}={text}')


def test_a_name_cannot_contradict_its_values():
  with pytest.raises(UsageError, match='alpha=60.0 contradicts'):
    dataclasses.replace(presets.demo(), algorithm='grpo')
  with pytest.raises(UsageError, match='advantages=.* are not those of algorithm'):
    dataclasses.replace(presets.demo(), algorithm='ctc_grpo_uncentred')


@pytest.mark.parametrize('name, published', (
    ('qwen3_0_6b', 0.596e9), ('qwen3_1_7b', 1.72e9), ('qwen3_4b', 4.02e9), ('qwen3_8b', 8.19e9), ('qwen3_14b', 14.77e9),
    ('qwen3_32b', 32.76e9)))
def test_policies_have_the_published_sizes(name, published):
  # Source: https://arxiv.org/abs/2505.09388, table 1, and the sizes of the published weights.
  assert presets.get(name).policy.num_params == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize('name', presets.PRESETS)
def test_the_decoder_has_as_many_weights_as_its_config_says(name):
  config = presets.get(name).policy
  params = nn.unbox(jax.eval_shape(step.params_init(Decoder(config)), jax.random.key(0)))
  assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == config.num_params
