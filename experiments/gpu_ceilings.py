"""How near decoding and updates come to what an NVIDIA GPU can do at most.

    python experiments/gpu_ceilings.py

measures the memory bandwidth and the bfloat16 products of the GPU, then random-weight policies of the shapes of Qwen3-0.6B and
Qwen3-8B, all with eijax.bench, one process after the other, and prints a Markdown table. Decoding is held against the bytes that each
token has to read (weights once for all rows, and the cache), updates against the FLOPs that the model needs (MFU). Of the 8B
policy a LoRA adapter is trained: with float32 weights and moments it would need 98 GB. Without a GPU one line says so.
"""

import json
import subprocess
import sys

from absl import app, flags

from eijax.plan import flops as flops_lib
from eijax.policy.config import LoraConfig, PolicyConfig

_OUT = flags.DEFINE_string('out', None, 'JSON file for the figures.')
_MODELS = flags.DEFINE_list('models', ['qwen3_0_6b', 'qwen3_8b'], 'Shapes to measure; tiny is for trying this script out.')
_ANY_DEVICE = flags.DEFINE_bool('any_device', False, 'Measure whatever device jax finds.')
_REPS = flags.DEFINE_integer('reps', 5, 'Timed calls of each program.', lower_bound=1)

# Shapes of the policy; rows and tokens of decoding and of the update; rank of the adapter, 0 for none.
MODELS = {
    'tiny': dict(shape=dict(num_layers=2, hidden=64, num_heads=2, num_kv_heads=1, head_dim=32, mlp=128, vocab=256),
                 decode=(4, 16, 32), train=(4, 64), rank=0),
    'qwen3_0_6b': dict(shape=dict(num_layers=28, hidden=1024, num_heads=16, num_kv_heads=8, head_dim=128, mlp=3072, vocab=151936, tied=True),
                       decode=(64, 128, 512), train=(16, 2048), rank=0),
    'qwen3_8b': dict(shape=dict(num_layers=36, hidden=4096, num_heads=32, num_kv_heads=8, head_dim=128, mlp=12288, vocab=151936),
                     decode=(64, 128, 512), train=(4, 2048), rank=16),
}


def bench(name: str, **values) -> dict:
  """One subcommand of eijax.bench in a process of its own, which gives the memory of the GPU back."""
  arguments = [f'--{key}={value}' for key, value in values.items()]
  done = subprocess.run([sys.executable, '-m', 'eijax.bench', name, *arguments], stdout=subprocess.PIPE, text=True, check=False)
  if done.returncode:
    sys.exit(f'error: eijax.bench {name} {" ".join(arguments)} ended with status {done.returncode}')
  return json.loads(done.stdout)


def policy_of(shape: dict, rank: int) -> PolicyConfig:
  return PolicyConfig(
      vocab_size=shape['vocab'], num_layers=shape['num_layers'], hidden_dim=shape['hidden'], num_heads=shape['num_heads'],
      num_kv_heads=shape['num_kv_heads'], head_dim=shape['head_dim'], mlp_dim=shape['mlp'], tie_embeddings=shape.get('tied', False),
      compute_dtype='bfloat16', remat='full', lora=LoraConfig(rank=rank))


def decode_bytes(policy: PolicyConfig, rows: int, context: int) -> int:
  """That one token in each row has to read: weights, and all cells of the cache, in bfloat16."""
  looked_up = 0 if policy.tie_embeddings else policy.vocab_size * policy.hidden_dim
  cells = 2 * policy.num_layers * rows * context * policy.num_kv_heads * policy.head_dim
  return 2 * (policy.num_params - looked_up + cells)


def measure_model(name: str, ceilings: dict, reps: int) -> dict:
  """Tokens a second, and their share of the ceilings."""
  model = MODELS[name]
  policy, shape = policy_of(model['shape'], model['rank']), model['shape'] | {'dtype': 'bfloat16', 'reps': reps}
  rows, prompt, new = model['decode']
  context = prompt + new
  # Two runs that differ in nothing but the number of tokens: what reading the prompts costs falls out.
  long, short = (bench('generate', batch=rows, prompt_len=prompt, new_tokens=n, seq_len=context, **shape) for n in (new, new // 4))
  per_token = (long['seconds'] - short['seconds']) / (new - new // 4)
  rows_of_update, length = model['train']
  train = bench('train_step', batch=rows_of_update, seq_len=length, remat='full', lora_rank=model['rank'], **shape)
  needed = flops_lib.train_step(policy, rows=rows_of_update, length=length, chunked=True).model
  return {
      'model': name, 'decode_rows': rows, 'decode_context': context, 'decode_tokens_per_s': rows / per_token,
      'decode_share_of_bandwidth': decode_bytes(policy, rows, context) / per_token / ceilings['bytes_per_s'],
      'train_rows': rows_of_update, 'train_length': length, 'train_tokens_per_s': train['tokens_per_s'], 'lora_rank': model['rank'],
      'train_mfu': needed / train['seconds'] / ceilings['flops_per_s'], 'train_peak_mib': train['peak_mib']}


def main(argv: list[str]) -> None:
  unknown = [name for name in _MODELS.value if name not in MODELS]
  if len(argv) > 1 or unknown:
    sys.exit(f'error: --models={",".join(_MODELS.value)} must be some of {", ".join(MODELS)}, and nothing else but flags')
  large = {} if _ANY_DEVICE.value else {'matrix': 8192, 'array_mib': 2048}
  found = subprocess.run([sys.executable, '-c', 'import jax; print(jax.default_backend())'], capture_output=True, text=True, check=True)
  platform = found.stdout.split()[-1]
  if platform not in ('gpu', 'cuda') and not _ANY_DEVICE.value:
    print(f"skipped: no NVIDIA GPU, jax runs on {platform}; on a machine with one: pip install 'jax[cuda12]'")
    return
  ceilings = bench('ceilings', dtype='bfloat16', **large)
  print(f'{ceilings["device"]}: {ceilings["bytes_per_s"] / 1e9:.0f} GB/s, {ceilings["flops_per_s"] / 1e12:.3g} bfloat16 TFLOP/s measured\n\n'
        '| policy | decode: rows x context | tokens/s | of bandwidth | update: rows x length | tokens/s | MFU | peak GiB |\n'
        '|---|---|---|---|---|---|---|---|')
  results = []
  for name in _MODELS.value:
    r = measure_model(name, ceilings, _REPS.value)
    results.append(r)
    adapter = f', LoRA {r["lora_rank"]}' if r['lora_rank'] else ''
    print(f'| {name}{adapter} | {r["decode_rows"]} x {r["decode_context"]} '
          f'| {r["decode_tokens_per_s"]:.0f} | {r["decode_share_of_bandwidth"]:.0%} | {r["train_rows"]} x {r["train_length"]} '
          f'| {r["train_tokens_per_s"]:.0f} | {r["train_mfu"]:.0%} | {r["train_peak_mib"] / 1024:.1f} |', flush=True)
  if _OUT.value:
    with open(_OUT.value, 'w', encoding='utf-8') as file:
      json.dump({'ceilings': ceilings, 'models': results}, file, indent=1)


if __name__ == '__main__':
  app.run(main)
