"""config.json of a Hugging Face folder to a `PolicyConfig`, and back. No arrays.

Both styles are read: `rope_theta`, `rope_scaling` and `torch_dtype` at the top level, or
`rope_parameters` (for Gemma 3 one for each kind of layer) and `dtype`. Where a value is
absent, the model type's documented default counts. What the decoder cannot do is refused
by name.
"""

from collections.abc import Mapping
import dataclasses
import math
import os
import pathlib
from typing import Any

from eijax import jsonl
from eijax.errors import DataError, UsageError
from eijax.policy.config import LoraConfig, PolicyConfig

CONFIG = 'config.json'
# Source of the defaults: the configuration page of each model in https://huggingface.co/docs/transformers.
_DEFAULTS = {
    'qwen3': dict(
        vocab_size=151936, hidden_size=4096, intermediate_size=22016, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, head_dim=128, hidden_act='silu', rope_theta=10_000.0, tie_word_embeddings=False),
    'qwen2': dict(
        vocab_size=151936, hidden_size=4096, intermediate_size=22016, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, head_dim=None, hidden_act='silu', rope_theta=10_000.0, tie_word_embeddings=False),
    'llama': dict(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=None, head_dim=None, hidden_act='silu', rope_theta=10_000.0, tie_word_embeddings=False),
    'gemma3_text': dict(
        vocab_size=262208, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26, num_attention_heads=8,
        num_key_value_heads=4, head_dim=256, hidden_activation='gelu_pytorch_tanh', rope_theta=1_000_000.0,
        tie_word_embeddings=True, query_pre_attn_scalar=256, sliding_window=4096, rope_local_base_freq=10_000.0,
        sliding_window_pattern=6),
}
NESTED = 'gemma3'  # Text and vision towers; the text one is a gemma3_text.
MODEL_TYPES = (*_DEFAULTS, NESTED)
_ARCHITECTURES = {
    'qwen3': 'Qwen3ForCausalLM', 'qwen2': 'Qwen2ForCausalLM', 'llama': 'LlamaForCausalLM',
    'gemma3_text': 'Gemma3ForCausalLM', NESTED: 'Gemma3ForConditionalGeneration',
}
_NORM_EPS = 1e-6
# Keys that change what a model computes -> the values under which they change nothing. Any other is refused.
_NEUTRAL = {
    'quantization_config': (None,), 'auto_map': (None,),
    'attention_bias': (False,), 'mlp_bias': (False,), 'attention_dropout': (0,), 'use_sliding_window': (False,),
    'attn_logit_softcapping': (None,), 'final_logit_softcapping': (None,), 'use_bidirectional_attention': (False, None),
    'partial_rotary_factor': (1,), 'num_experts': (None, 0), 'num_local_experts': (None, 0),
    'n_routed_experts': (None, 0), 'attention_multiplier': (1,), 'residual_multiplier': (1,),
    'embedding_multiplier': (1,), 'logits_scaling': (1,), 'is_encoder_decoder': (False,), 'add_cross_attention': (False,),
}
_ROPE_FIELDS = {'default': (), 'linear': ('factor',), 'llama3': ('factor', 'low_freq_factor', 'high_freq_factor')}
_ACTIVATIONS = {'silu': 'silu', 'gelu_pytorch_tanh': 'gelu_tanh'}
# Said of a policy whose folder did not come from elsewhere: nothing here depends on it, servers want one.
_CONTEXT = 32768


def is_hf_folder(folder: str | os.PathLike) -> bool:
  """Whether a folder's config.json names a model type, as those of Hugging Face do and ours do not."""
  path = pathlib.Path(folder) / CONFIG
  if not path.is_file():
    return False
  values = jsonl.read_json(path)
  return isinstance(values, dict) and 'model_type' in values


def read_architecture(folder: str | os.PathLike) -> PolicyConfig:
  """The shapes and architecture that a folder's config.json describes, float32 throughout.

  Raises:
    DataError: it cannot be read, or describes what the decoder does not do; names file, field and value.
  """
  path = pathlib.Path(folder) / CONFIG
  return policy_config(jsonl.read_json(path), str(path))


def text_values(values: Any, where: str) -> dict[str, Any]:
  """The part of a config.json that describes the text model, its model type checked.

  Raises:
    DataError: not an object, or another model type or class.
  """
  if not isinstance(values, dict) or 'model_type' not in values:
    raise DataError(f'{where}: must be an object with a `model_type`; give the folder of a Hugging Face model')
  kind = values['model_type']
  if kind not in MODEL_TYPES:
    raise DataError(f'{where}: model_type={kind!r} is not supported; use a model of type {", ".join(MODEL_TYPES)}')
  classes = values.get('architectures') or [_ARCHITECTURES[kind]]
  if classes != [_ARCHITECTURES[kind]]:
    raise DataError(f'{where}: architectures={classes!r} is not supported; for model_type={kind!r} it must be '
                    f'{[_ARCHITECTURES[kind]]!r}')
  _refuse(values, where)
  if kind != NESTED:
    return values
  inner = values.get('text_config') or {}
  if not isinstance(inner, dict) or inner.get('model_type', 'gemma3_text') != 'gemma3_text':
    raise DataError(f'{where}: text_config must be an object of model_type gemma3_text')
  # The outer value decides: it is the outer model that ties its head.
  tied = {'tie_word_embeddings': values['tie_word_embeddings']} if 'tie_word_embeddings' in values else {}
  return {**inner, 'model_type': 'gemma3_text', **tied}


def policy_config(values: Any, where: str) -> PolicyConfig:
  """See `read_architecture`; `values` is the parsed config.json and `where` its name in errors."""
  values = text_values(values, where)
  kind = values['model_type']
  _refuse({key: value for key, value in values.items() if not (kind == 'qwen2' and key == 'attention_bias')}, where)
  get = lambda key: values.get(key, _DEFAULTS[kind].get(key))
  heads = _number(get('num_attention_heads'), 'num_attention_heads', where, int)
  activation = 'hidden_activation' if kind == 'gemma3_text' else 'hidden_act'
  if get(activation) != _DEFAULTS[kind][activation]:
    raise DataError(f'{where}: {activation}={get(activation)!r} is not supported for {kind}; '
                    f'it must be {_DEFAULTS[kind][activation]!r}')
  hidden = _number(get('hidden_size'), 'hidden_size', where, int)
  head_dim = hidden // heads if get('head_dim') is None and kind != 'qwen3' else get('head_dim')
  facts = dict(
      vocab_size=_number(get('vocab_size'), 'vocab_size', where, int),
      num_layers=_number(get('num_hidden_layers'), 'num_hidden_layers', where, int),
      hidden_dim=hidden, num_heads=heads,
      num_kv_heads=heads if get('num_key_value_heads') is None
      else _number(get('num_key_value_heads'), 'num_key_value_heads', where, int),
      head_dim=_number(head_dim, 'head_dim', where, int),
      mlp_dim=_number(get('intermediate_size'), 'intermediate_size', where, int),
      norm_eps=_number(values.get('rms_norm_eps', _NORM_EPS), 'rms_norm_eps', where, float),
      tie_embeddings=_boolean(get('tie_word_embeddings'), 'tie_word_embeddings', where),
      activation=_ACTIVATIONS[get(activation)],
      qkv_bias=kind == 'qwen2', query_key_norm=kind in ('qwen3', 'gemma3_text'))
  try:
    if kind == 'gemma3_text':
      return PolicyConfig(**facts, **_gemma3(values, get, facts, where))
    kinds = values.get('layer_types') or []
    if set(kinds) - {'full_attention'}:
      raise DataError(f'{where}: layer_types names {sorted(set(kinds) - {"full_attention"})}, which is not supported for '
                      f'{kind}; every layer must be full_attention')
    return PolicyConfig(**facts, **_rope(values, 'full_attention', _DEFAULTS[kind]['rope_theta'], where))
  except UsageError as error:
    raise DataError(f'{where}: {error}') from None


def _gemma3(values: Mapping[str, Any], get, facts: Mapping[str, Any], where: str) -> dict[str, Any]:
  """Gemma 3's own facts. Source: https://arxiv.org/abs/2503.19786, section 2."""
  num_layers = facts['num_layers']
  kinds = values.get('layer_types')
  if kinds is None:
    every = _number(values.get('_sliding_window_pattern', get('sliding_window_pattern')), 'sliding_window_pattern', where, int)
    kinds = ['full_attention' if (i + 1) % every == 0 else 'sliding_attention' for i in range(num_layers)]
  if len(kinds) != num_layers or set(kinds) - {'full_attention', 'sliding_attention'}:
    raise DataError(f'{where}: layer_types={kinds!r} must say full_attention or sliding_attention for each of '
                    f'the {num_layers} layers')
  local_layers = tuple(i for i, kind in enumerate(kinds) if kind == 'sliding_attention')
  local = _rope(values, 'sliding_attention', get('rope_local_base_freq'), where)
  if local['rope_scaling'] != 'none':
    raise DataError(f'{where}: rope_type={local["rope_scaling"]!r} of sliding_attention is not supported; it must be default')
  return dict(
      _rope(values, 'full_attention', _DEFAULTS['gemma3_text']['rope_theta'], where),
      norm_offset=1.0, branch_norms=True, embedding_scale=math.sqrt(facts['hidden_dim']),
      attention_scale=_number(get('query_pre_attn_scalar'), 'query_pre_attn_scalar', where, float) ** -0.5,
      local_layers=local_layers, local_rope_theta=local['rope_theta'],
      window=_number(get('sliding_window'), 'sliding_window', where, int) if local_layers else 0)


def _rope(values: Mapping[str, Any], kind: str, default_theta: float, where: str) -> dict[str, Any]:
  """Rotary values of one kind of layer, in either style."""
  given = values.get('rope_parameters')
  if given is not None and not isinstance(given, dict):
    raise DataError(f'{where}: rope_parameters={given!r} must be an object')
  given = given or {}
  if any(isinstance(value, dict) for value in given.values()):
    given = given.get(kind) or {}
  is_local = kind == 'sliding_attention'
  if not given and not is_local:  # The older style scales the layers that see the whole context.
    given = values.get('rope_scaling') or {}
  theta = given.get('rope_theta', values.get('rope_local_base_freq' if is_local else 'rope_theta', default_theta))
  _refuse(given, where)
  name = given.get('rope_type', given.get('type', 'default'))
  if name not in _ROPE_FIELDS:
    raise DataError(f'{where}: rope_type={name!r} is not supported; use one of {", ".join(_ROPE_FIELDS)}')
  missing = [field for field in _ROPE_FIELDS[name] if field not in given]
  if missing:
    raise DataError(f'{where}: rope_type={name!r} needs {", ".join(missing)} beside it')
  number = lambda field: _number(given[field], field, where, float)
  result = dict(rope_theta=_number(theta, 'rope_theta', where, float), rope_scaling='none' if name == 'default' else name)
  if name != 'default':
    result['rope_factor'] = number('factor')
  if name == 'llama3':
    length = given.get('original_max_position_embeddings', values.get('max_position_embeddings'))
    result.update(rope_low_turns=number('low_freq_factor'), rope_high_turns=number('high_freq_factor'),
                  rope_original_length=_number(length, 'original_max_position_embeddings', where, int))
  return result


def _refuse(values: Mapping[str, Any], where: str) -> None:
  for key, neutral in _NEUTRAL.items():
    if key in values and values[key] not in neutral:
      shown = values[key].get('quant_method', '...') if isinstance(values[key], dict) else values[key]
      raise DataError(f'{where}: {key}={shown!r} is not supported; it must be {neutral[0]!r} or absent')


def _number(value: Any, name: str, where: str, kind: type) -> Any:
  if isinstance(value, bool) or not isinstance(value, (int, kind)) or not math.isfinite(value) or value <= 0:
    raise DataError(f'{where}: {name}={value!r} must be a positive {"integer" if kind is int else "number"}')
  return kind(value)


def _boolean(value: Any, name: str, where: str) -> bool:
  if not isinstance(value, bool):
    raise DataError(f'{where}: {name}={value!r} must be true or false')
  return value


def _rope_values(config: PolicyConfig) -> dict[str, Any] | None:
  """`rope_scaling` of a config.json."""
  if config.rope_scaling == 'none':
    return None
  values = {'rope_type': config.rope_scaling, 'factor': config.rope_factor}
  if config.rope_scaling == 'llama3':
    values.update(low_freq_factor=config.rope_low_turns, high_freq_factor=config.rope_high_turns,
                  original_max_position_embeddings=config.rope_original_length)
  return values


def config_values(config: PolicyConfig) -> dict[str, Any]:
  """A config.json for a policy, in the style that every release of transformers reads. An adapter is no part of it.

  Raises:
    UsageError: no model type has this architecture.
  """
  plain = dataclasses.replace(config, param_dtype='float32', compute_dtype='float32', remat='none', scan_unroll=1,
                              lora=LoraConfig())
  shared = dict(
      vocab_size=config.vocab_size, hidden_size=config.hidden_dim, intermediate_size=config.mlp_dim,
      num_hidden_layers=config.num_layers, num_attention_heads=config.num_heads, num_key_value_heads=config.num_kv_heads,
      head_dim=config.head_dim, max_position_embeddings=_CONTEXT, rms_norm_eps=config.norm_eps,
      tie_word_embeddings=config.tie_embeddings, rope_theta=config.rope_theta, rope_scaling=_rope_values(config))
  for kind, defaults in _DEFAULTS.items():
    values = {'architectures': [_ARCHITECTURES[kind]], 'model_type': kind, **shared}
    if kind == 'gemma3_text':
      # The square root's rounding must not show, and transformers takes only an integer.
      scalar = round(config.attention_scale**-2) if config.attention_scale else config.head_dim
      values.update(
          hidden_activation=defaults['hidden_activation'], query_pre_attn_scalar=scalar,
          sliding_window=config.window or None, rope_local_base_freq=config.local_rope_theta,
          layer_types=['sliding_attention' if i in config.local_layers else 'full_attention' for i in range(config.num_layers)])
    else:
      values['hidden_act'] = defaults['hidden_act']
    # Whatever was not said above would come back as a default.
    if policy_config(values, kind) == plain:
      return values
  raise UsageError(f'no Hugging Face model type has this architecture ({config}); only policies of type '
                   f'{", ".join(_DEFAULTS)} can be exported')
