"""A run at real size without real weights: a folder shaped like Qwen3-0.6B, imported, trained for two steps, exported.

    python tests/qwen3_dry_run.py [FLAGS OF eijax.train]

Writes about 1.2 GB of weights and 15 GB of checkpoints to a temporary folder and removes them. Takes a few minutes on
an idle machine; needs 16 GB of memory. Prints what the import held, the metrics of both steps and whether the export of
step 0 is the folder again, to the bit.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import hf_folders
import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from tiny_run import write_scenarios

TESTS = pathlib.Path(__file__).resolve().parent
CONFIG = dict(
    architectures=['Qwen3ForCausalLM'], attention_bias=False, attention_dropout=0.0, head_dim=128, hidden_act='silu',
    hidden_size=1024, intermediate_size=3072, max_position_embeddings=40960, max_window_layers=28, model_type='qwen3',
    num_attention_heads=16, num_hidden_layers=28, num_key_value_heads=8, rms_norm_eps=1e-06, rope_scaling=None,
    rope_theta=1000000, sliding_window=None, tie_word_embeddings=True, torch_dtype='bfloat16', use_sliding_window=False,
    vocab_size=151936)
# Short talks and small batches: what is tried is the size of the policy.
FLAGS = ('--num_steps=2', '--scenarios_per_step=1', '--group_size=2', '--max_rounds=2', '--max_new_tokens=8', '--spans=384',
         '--chunks=128', '--row_lengths=384', '--rows_per_minibatch=2', '--num_minibatches=1', '--num_micro_batches=2',
         '--chunk_length=64', '--num_slots=2', '--compute_dtype=float32', '--remat=none', '--nothinking', '--eval_every=0',
         '--checkpoint_every=2')


def write_model(folder: pathlib.Path) -> None:
  """Two files of weights; the numbers are one random block, shifted for each tensor."""
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(CONFIG))
  for path in (TESTS / 'hf_text' / 'qwen3').iterdir():
    shutil.copy(path, folder)
  noise = np.random.RandomState(0).normal(0, 0.02, 2**22).astype(ml_dtypes.bfloat16)
  shapes = list(hf_folders.shapes(hf_folders.Case(CONFIG)).items())
  table = {}
  for number, part in enumerate((shapes[::2], shapes[1::2]), start=1):
    name = f'model-{number:05d}-of-00002.safetensors'
    weights = {}
    for place, (key, shape) in enumerate(part):
      table[key] = name
      ones = np.ones(shape, ml_dtypes.bfloat16)
      weights[key] = ones if 'norm' in key else np.resize(np.roll(noise, 7919 * place + number), shape)
    save_file(weights, folder / name, metadata={'format': 'pt'})
  (folder / 'model.safetensors.index.json').write_text(json.dumps({'metadata': {}, 'weight_map': table}))


def run(*command: str) -> str:
  """Standard output of a command, which must end well."""
  print('$', ' '.join(command), flush=True)
  start = time.monotonic()
  env = {**os.environ, 'PYTHONPATH': str(TESTS.parent), 'JAX_PLATFORMS': 'cpu'}
  result = subprocess.run((sys.executable, *command), stdout=subprocess.PIPE, text=True, check=True, cwd=TESTS.parent, env=env)
  print(result.stdout + f'({time.monotonic() - start:.0f} seconds)', flush=True)
  return result.stdout


def tensors(folder: pathlib.Path):
  for path in sorted(folder.glob('*.safetensors')):
    with safe_open(path, framework='numpy') as file:
      for name in file.keys():
        yield name, file.get_tensor(name)


def main(flags: list[str]) -> None:
  with tempfile.TemporaryDirectory(prefix='qwen3_dry_run_') as scratch:
    scratch = pathlib.Path(scratch)
    model, workdir = scratch / 'model', scratch / 'run'
    write_model(model)
    small = hf_folders.write_folder(scratch / 'small', hf_folders.CASES['qwen3_tied_modern_sharded'], dtype='bfloat16')
    used = json.loads(run(str(TESTS / 'hf_memory.py'), str(model), str(small)))
    largest = 2 * CONFIG['vocab_size'] * CONFIG['hidden_size']
    print(f'import: {used["kept"] / 2**20:,.0f} MiB kept, {used["beside"] / 2**20:,.0f} MiB beside them at most, '
          f'{used["beside"] / largest:.2f} times the largest tensor', flush=True)
    assert used['beside'] < 1.3 * largest
    run('-m', 'eijax.train', f'--policy={model}', f'--scenarios={write_scenarios(scratch / "scenarios")}',
        f'--workdir={workdir}', *FLAGS, *flags)
    print((workdir / 'metrics.jsonl').read_text(), flush=True)
    run('-m', 'eijax.convert', f'--from={workdir}', f'--to={scratch / "step_0"}', '--step=0', '--max_shard_gib=0.5')
    expected = dict(tensors(model))
    same = [expected.pop(name).tobytes() == value.tobytes() for name, value in tensors(scratch / 'step_0')]
    print(f'export of step 0: {sum(same)} of {len(same)} tensors are those of the folder, {len(expected)} are missing', flush=True)
    assert all(same) and not expected


if __name__ == '__main__':
  main(sys.argv[1:])
