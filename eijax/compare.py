"""Compare two evaluations, B against A: python -m eijax.compare A B.

A and B are folders of eijax.evaluate, or eval/step_NNNNNN of a training run. Prints the paired
difference with its interval and p value, overall and per scene, and the scenarios that moved most.
"""

import json
import math
import pathlib
import sys

from absl import flags

from eijax import command, jsonl
from eijax.comparison import findings, wording
from eijax.errors import UsageError
from eijax.evaluation.reading import read_evaluation

MARKDOWN = 'compare.md'
JSON = 'compare.json'

_JSON = flags.DEFINE_bool('json', False, 'Print the findings as one JSON object instead of text.')
_OUT = flags.DEFINE_string('out', None, f'Folder for {MARKDOWN} and {JSON}.')
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of the bootstrap and of the permutations.', lower_bound=0)
_TIE_MARGIN = flags.DEFINE_float(
    'tie_margin', 0.0, 'Points (scores x100) by which two scores of a scenario may differ and count as tied.',
    lower_bound=0.0,
)
_NUM_MOVED = flags.DEFINE_integer('num_moved', 5, 'Scenarios to name that rose most, and that fell most.', lower_bound=0)


def main(argv: list[str]) -> None:
  if len(argv) != 3:
    raise UsageError(f'{len(argv) - 1} arguments given; give two evaluation folders: python -m eijax.compare A B')
  if not math.isfinite(_TIE_MARGIN.value):
    raise UsageError(f'--tie_margin={_TIE_MARGIN.value} must be a finite number of points; 0 for equal scores only')
  found = findings.compare(
      *map(read_evaluation, argv[1:]), seed=_SEED.value, tie_margin=_TIE_MARGIN.value, num_moved=_NUM_MOVED.value
  )
  if _JSON.value:
    print(json.dumps(found, ensure_ascii=True, allow_nan=False, indent=2))
  else:
    print(wording.text(found))
  if _OUT.value:
    out = pathlib.Path(_OUT.value)
    jsonl.write_json(out / JSON, found)
    jsonl.write_bytes(out / MARKDOWN, wording.markdown(found).encode('utf-8', 'replace'))
    print(f'wrote {out / MARKDOWN} and {out / JSON}', file=sys.stderr)


if __name__ == '__main__':
  flags.FLAGS.set_gnu_getopt(True)  # Flags may stand behind the folders.
  command.run(main)
