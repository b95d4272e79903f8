"""Import a folder in a process of its own, and print what it held at most beside the params, in bytes.

    python tests/hf_memory.py FOLDER WARM_UP_FOLDER

The other folder, of the same kind but tiny, is imported first: what jax and its compiler take counts for neither.
"""

import json
import pathlib
import sys

import hf_policy
import jax


def resident_bytes(name: str) -> int:
  """VmRSS, now, or VmHWM, at most. Not getrusage: its maximum is handed down from the process that started this one."""
  lines = pathlib.Path('/proc/self/status').read_text().splitlines()
  return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f'{name}:'))


def main(folder: str, warm_up: str) -> None:
  hf_policy.load(warm_up)
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # The maximum starts anew.
  before = resident_bytes('VmRSS')
  _, _, params = hf_policy.load(folder)
  kept = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  print(json.dumps({'kept': kept, 'beside': resident_bytes('VmHWM') - before - kept}))


if __name__ == '__main__':
  main(*sys.argv[1:])
