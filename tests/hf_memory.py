"""Import a folder in a process of its own, and print what it held at most beside the params, in bytes.

    python tests/hf_memory.py FOLDER WARM_UP_FOLDER

The other folder, of the same kind but tiny, is imported first: what jax and its compiler take counts for neither.
"""

import json
import resource
import sys

import hf_policy
import jax


def peak_bytes() -> int:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(folder: str, warm_up: str) -> None:
  hf_policy.load(warm_up)
  before = peak_bytes()
  _, _, params = hf_policy.load(folder)
  kept = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  print(json.dumps({'kept': kept, 'beside': peak_bytes() - before - kept}))


if __name__ == '__main__':
  main(*sys.argv[1:])
