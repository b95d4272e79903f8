"""What `eijax.plan` says of the slices that BUILD.md has a table of, as Markdown.

  python experiments/tpu_slices.py --out=slices

Compiles for each slice with libtpu (pip install 'eijax[plan]'); one to five minutes each on two cores, no TPU. A slice whose
answer is in --out already is not compiled again.
"""

import json
import os
import pathlib
import subprocess
import sys

from absl import flags
import tqdm

from eijax import command
from eijax.errors import EijaxError, UsageError

# Preset, slice, and the flags that differ from the preset's own.
SLICES = (
    ('qwen3_8b', 'v5p:2x2x4', '--row_lengths=2048 --spans=2048 --rows_per_minibatch=128 --num_micro_batches=1'),
    ('qwen3_8b', 'v5e:4x8', '--row_lengths=8192 --spans=8192 --rows_per_minibatch=64 --num_micro_batches=1'),
    ('qwen3_8b', 'v5p:2x2x4', ''),
    ('qwen3_8b', 'v5e:4x8', ''),
    ('qwen3_8b', 'v6e:4x4', ''),
    ('qwen3_32b', 'v6e:8x8', ''),
    ('qwen3_32b', 'v5e:16x16', ''),
)
GIB = 2**30
HEAD = ('| preset | slice | batch | flags | update: peak, temporaries / limit (GiB) | bound, at least | decode: peak (GiB) | bound, a token | '
        'compiled (CPU s) |\n|---|---|---|---|---|---|---|---|---|')

_ONLY = flags.DEFINE_list('only', [], 'Slices, e.g. v5e:4x8,v6e:4x4; default: all of the table.')
_OUT = flags.DEFINE_string('out', 'slices', 'Folder for the answers of eijax.plan, one JSON file each.')


def plan(preset: str, topology: str, extra: str, path: pathlib.Path) -> dict:
  """The answer of eijax.plan, from the file if it is there."""
  if path.exists():
    return json.loads(path.read_text())
  arguments = [f'--preset={preset}', f'--topology={topology}', '--json', *extra.split()]
  done = subprocess.run([sys.executable, '-m', 'eijax.plan', *arguments], capture_output=True, text=True, check=False)
  if done.returncode:
    raise EijaxError(f'eijax.plan {" ".join(arguments)} failed: {done.stderr.strip().splitlines()[-1].removeprefix("error: ")}')
  part = path.with_suffix('.part')
  part.write_text(done.stdout)
  os.replace(part, path)
  return json.loads(done.stdout)


def row(preset: str, topology: str, extra: str, answer: dict) -> str:
  """A line of the table."""
  update, decode = answer['train_step'], answer['decode_step']
  mesh = ', '.join(f'{axis}={size}' for axis, size in answer['mesh'].items() if size > 1)
  size = lambda step, name: '-' if step[name] is None else f'{step[name] / GIB:.2f}'
  peak = lambda step: size(step, 'hbm_bytes') + ('' if step['fits'] else ' (does not fit)')
  return ' | '.join((
      f'| `{preset}`', f'`{topology}` ({answer["num_devices"]})', f'{update["tokens"] // 1024}k tokens, {mesh}',
      f'`{extra}`' if extra else 'none',
      f'{peak(update)}, {size(update, "temporaries_bytes")} / {size(update, "hbm_limit_bytes")}',
      f'{update["bound"]}, {update["seconds_estimate"]:.2f} s', peak(decode),
      f'{decode["bound"]}, {1e3 * decode["seconds_estimate"]:.1f} ms',
      f'{update["compile_cpu_seconds"]:.0f} + {decode["compile_cpu_seconds"]:.0f} |'))


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UsageError(f'unexpected argument {argv[1]!r}; all settings are flags, see --help')
  folder = pathlib.Path(_OUT.value)
  folder.mkdir(parents=True, exist_ok=True)
  chosen = [slice_ for slice_ in SLICES if not _ONLY.value or slice_[1] in _ONLY.value]
  print(HEAD, flush=True)
  for preset, topology, extra in tqdm.tqdm(chosen, unit='slice', disable=not sys.stderr.isatty()):
    name = '-'.join((preset, topology.replace(':', '_'), 'flags' if extra else 'preset'))
    print(row(preset, topology, extra, plan(preset, topology, extra, folder / f'{name}.json')), flush=True)


if __name__ == '__main__':
  command.run(main)
