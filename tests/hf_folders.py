"""Hugging Face folders with random weights, written by hand: names, shapes and both styles of config.json.

Knows nothing of the code under test and needs neither transformers nor torch. Run as a program, it writes one:

    python tests/hf_folders.py CASE FOLDER
"""

import dataclasses
import json
import pathlib
import sys

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

VOCAB = 61  # Small enough for greedy ties to be rare and goldens to be short.
# No two sizes are equal, and hidden_size is not heads * head_dim.
_ODD = dict(vocab_size=VOCAB, hidden_size=24, intermediate_size=44, num_hidden_layers=3, num_attention_heads=6,
            num_key_value_heads=2, rms_norm_eps=1e-5, max_position_embeddings=512)
_LLAMA_SCALING = dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_max_position_embeddings=64)


@dataclasses.dataclass(frozen=True)
class Case:
  """config: config.json in the older style. modern: written in the newer one. num_files: of weights. nested: within
  text_config, beside a vision tower."""

  config: dict
  modern: bool = False
  num_files: int = 1
  nested: bool = False

  @property
  def kind(self) -> str:
    return self.config['model_type']

  @property
  def tied(self) -> bool:
    return self.config['tie_word_embeddings']


def _qwen3(**changes):
  return dict(_ODD, architectures=['Qwen3ForCausalLM'], model_type='qwen3', head_dim=10, hidden_act='silu',
              rope_theta=1e6, tie_word_embeddings=False, torch_dtype='float32', attention_bias=False,
              use_sliding_window=False, sliding_window=None, max_window_layers=3, **changes)


def _qwen2(**changes):
  # head_dim is absent, as in the published folders: 24 / 6.
  return dict(_ODD, architectures=['Qwen2ForCausalLM'], model_type='qwen2', hidden_act='silu', rope_theta=1e5,
              tie_word_embeddings=False, torch_dtype='float32', use_sliding_window=False, sliding_window=32,
              max_window_layers=2, **changes)


def _llama(**changes):
  return dict(_ODD, architectures=['LlamaForCausalLM'], model_type='llama', head_dim=14, hidden_act='silu',
              rope_theta=5e5, rope_scaling=_LLAMA_SCALING, tie_word_embeddings=False, torch_dtype='float32',
              attention_bias=False, mlp_bias=False, **changes)


def _gemma3(**changes):
  # Eight layers in a pattern of three, a window far shorter than the texts, and an odd scale of the scores.
  return dict({**_ODD, 'num_hidden_layers': 8}, architectures=['Gemma3ForCausalLM'], model_type='gemma3_text', head_dim=12,
              hidden_activation='gelu_pytorch_tanh', rope_theta=1e6, rope_local_base_freq=1e3, query_pre_attn_scalar=19,
              rope_scaling=dict(rope_type='linear', factor=8.0), sliding_window=7, sliding_window_pattern=3,
              tie_word_embeddings=True, torch_dtype='float32', attn_logit_softcapping=None, final_logit_softcapping=None,
              **changes)


CASES = {
    'qwen3': Case(_qwen3()),
    'qwen3_tied_modern_sharded': Case(_qwen3() | dict(tie_word_embeddings=True), modern=True, num_files=3),
    'qwen2': Case(_qwen2(), num_files=2),
    'qwen2_tied_modern': Case(_qwen2() | dict(tie_word_embeddings=True), modern=True),
    'llama': Case(_llama()),
    'llama_tied_modern_sharded': Case(_llama() | dict(tie_word_embeddings=True), modern=True, num_files=2),
    'gemma3': Case(_gemma3()),
    'gemma3_untied_modern_sharded': Case(_gemma3() | dict(tie_word_embeddings=False), modern=True, num_files=2),
    'gemma3_nested': Case(_gemma3(), nested=True),
}


def config_json(case: Case) -> dict:
  """What the folder's config.json says."""
  config = dict(case.config)
  if case.modern:
    config['dtype'] = config.pop('torch_dtype')
    scaling = config.pop('rope_scaling', None) or {'rope_type': 'default'}
    full = dict(scaling, rope_theta=config.pop('rope_theta'))
    if case.kind == 'gemma3_text':
      local = {'rope_type': 'default', 'rope_theta': config.pop('rope_local_base_freq')}
      every = config.pop('sliding_window_pattern')
      config['layer_types'] = ['sliding_attention' if (i + 1) % every else 'full_attention'
                               for i in range(config['num_hidden_layers'])]
      config['rope_parameters'] = {'full_attention': full, 'sliding_attention': local}
    else:
      config['layer_types'] = ['full_attention'] * config['num_hidden_layers']
      config['rope_parameters'] = full
  if case.nested:
    tied = config.pop('tie_word_embeddings')
    del config['architectures']
    return {'architectures': ['Gemma3ForConditionalGeneration'], 'model_type': 'gemma3', 'text_config': config,
            'vision_config': {'hidden_size': 8}, 'tie_word_embeddings': tied, 'eos_token_id': [1, 5]}
  return config


def shapes(case: Case) -> dict[str, tuple[int, ...]]:
  """Name -> shape of every tensor of the text model."""
  c = case.config
  d, f, n, k = (c[name] for name in ('hidden_size', 'intermediate_size', 'num_attention_heads', 'num_key_value_heads'))
  h = c.get('head_dim', d // n)
  found = {'model.embed_tokens.weight': (c['vocab_size'], d), 'model.norm.weight': (d,)}
  if not case.tied:
    found['lm_head.weight'] = (c['vocab_size'], d)
  for i in range(c['num_hidden_layers']):
    layer = {'self_attn.q_proj.weight': (n * h, d), 'self_attn.k_proj.weight': (k * h, d),
             'self_attn.v_proj.weight': (k * h, d), 'self_attn.o_proj.weight': (d, n * h),
             'mlp.gate_proj.weight': (f, d), 'mlp.up_proj.weight': (f, d), 'mlp.down_proj.weight': (d, f),
             'input_layernorm.weight': (d,), 'post_attention_layernorm.weight': (d,)}
    if case.kind in ('qwen3', 'gemma3_text'):
      layer |= {'self_attn.q_norm.weight': (h,), 'self_attn.k_norm.weight': (h,)}
    if case.kind == 'qwen2':
      layer |= {'self_attn.q_proj.bias': (n * h,), 'self_attn.k_proj.bias': (k * h,), 'self_attn.v_proj.bias': (k * h,)}
    if case.kind == 'gemma3_text':
      layer |= {'pre_feedforward_layernorm.weight': (d,), 'post_feedforward_layernorm.weight': (d,)}
    found |= {f'model.layers.{i}.{name}': shape for name, shape in layer.items()}
  return found


def tensors(case: Case, dtype: str = 'float32', seed: int = 0) -> dict[str, np.ndarray]:
  """Random weights that leave nothing at its neutral value: a norm or bias left out shows.

  RandomState's stream is frozen, so that recorded outputs stay those of these weights.
  """
  rng = np.random.RandomState(seed)
  result = {}
  for name, shape in shapes(case).items():
    if 'norm' in name:
      low = -0.5 if case.kind == 'gemma3_text' else 0.5  # Gemma's norms add one.
      values = rng.uniform(low, low + 1.2, shape)
      if name == 'model.norm.weight' and case.kind == 'gemma3_text':
        values = 4 + values
    elif name.endswith('bias'):
      values = rng.normal(0, 0.7, shape)
    elif name.startswith(('model.embed', 'lm_head')):
      # Gemma scales its embeddings up: larger ones would drown the layers, and a tied policy repeat its last token.
      values = rng.normal(0, 0.15 if case.kind == 'gemma3_text' else 0.5, shape)
    else:
      values = rng.normal(0, 1.3 / np.sqrt(shape[1]), shape)
    result[name] = values.astype(ml_dtypes.bfloat16 if dtype == 'bfloat16' else np.float32)
  return result


def write_folder(folder, case: Case, *, dtype: str = 'float32', seed: int = 0) -> pathlib.Path:
  """Write config.json and weights; returns the folder."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  config = config_json(case)
  for part in (config, config.get('text_config', {})):
    for key in ('dtype', 'torch_dtype'):
      if key in part:
        part[key] = dtype
  (folder / 'config.json').write_text(json.dumps(config))
  (folder / 'generation_config.json').write_text(json.dumps({'eos_token_id': [1, 5], 'bos_token_id': 2}))
  weights = tensors(case, dtype, seed)
  if case.nested:
    weights = {f'language_model.{name}': value for name, value in weights.items()}
    weights['vision_tower.vision_model.post_layernorm.weight'] = np.ones(8, np.float32)
    weights['multi_modal_projector.mm_soft_emb_norm.weight'] = np.ones(8, np.float32)
  names = list(weights)
  if case.num_files == 1:
    save_file(weights, folder / 'model.safetensors', metadata={'format': 'pt'})
    return folder
  table = {}
  for number in range(case.num_files):
    file = f'model-{number + 1:05d}-of-{case.num_files:05d}.safetensors'
    part = names[number::case.num_files]  # A layer's tensors lie in several files.
    save_file({name: weights[name] for name in part}, folder / file, metadata={'format': 'pt'})
    table |= {name: file for name in part}
  total = sum(value.nbytes for value in weights.values())
  index = {'metadata': {'total_size': total}, 'weight_map': table}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  return folder


if __name__ == '__main__':
  write_folder(sys.argv[2], CASES[sys.argv[1]])
