"""Record what transformers computes for the folders of tests/hf_folders.py: python tests/parity/record_policies.py

Writes tests/hf_golden.json, which keeps `make test` sharp without transformers. Run it after a change of the folders.
"""

import json
import pathlib
import sys
import tempfile

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

# pylint: disable=wrong-import-position
import hf_folders
import hf_policy
import transformers_policy

NUM_POSITIONS = 2


def recorded(name: str) -> dict:
  """Logits of the last positions of the first prompt, six digits, and the continuation of the second."""
  with tempfile.TemporaryDirectory() as folder:
    model = transformers_policy.load(hf_folders.write_folder(folder, hf_folders.CASES[name]))
  first, second = hf_policy.prompts(hf_folders.VOCAB)
  logits = transformers_policy.logits(model, first)
  return {'scale': float(f'{abs(logits).max():.6g}'),
          'logits': [[float(f'{value:.6g}') for value in row] for row in logits[-NUM_POSITIONS:].tolist()],
          'greedy': transformers_policy.greedy(model, second, hf_policy.NUM_NEW)}


if __name__ == '__main__':
  golden = {name: recorded(name) for name, case in hf_folders.CASES.items() if not case.nested}
  text = json.dumps(golden).replace('}, "', '},\n"')
  (TESTS / 'hf_golden.json').write_text(text + '\n')
