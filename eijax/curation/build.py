"""Write the scenario set from its hand-written cards, or check that it is up to date: build [--check]."""

import itertools
import json
import pathlib
import tempfile

from absl import flags

from eijax import jsonl
from eijax.curation import records
from eijax.errors import DataError, UsageError
from eijax.scenarios import build as build_lib


def define_flags(flag_values: flags.FlagValues) -> None:
  flags.DEFINE_string('cards', 'scenario_data/cards', 'Folder of the cards, with set.yaml.', flag_values=flag_values)
  flags.DEFINE_string(
    'out', 'scenario_data', 'Folder that gets {train,test}/SCENE_final.jsonl.', flag_values=flag_values
  )
  flags.DEFINE_bool(
    'check', False, 'Write nothing; compare --out with the cards and exit 1 at the first difference.',
    flag_values=flag_values,
  )  # fmt: skip


def run(flag_values: flags.FlagValues, arguments: list[str]) -> None:
  """Build or check.

  Raises:
    UsageError: an argument, or no folder of cards.
    DataError: a broken card, or with --check a difference.
  """
  if arguments:
    raise UsageError(f'unexpected argument {arguments[0]!r}; every setting is a flag, see --help')
  cards, out = pathlib.Path(flag_values.cards), pathlib.Path(flag_values.out)
  if not cards.is_dir():
    raise UsageError(f'--cards={cards} must be a folder of cards, and does not exist; check the path')
  built = build_lib.build(cards)
  total = sum(map(len, built.values()))
  if flag_values.check:
    compare(built, out)
    print(f'{out} is what {cards} gives, byte for byte: {total} scenarios')
    return
  with tempfile.TemporaryDirectory() as folder:
    build_lib.write(built, pathlib.Path(folder))
    for path in sorted(pathlib.Path(folder).rglob('*_final.jsonl')):
      jsonl.write_bytes(out / path.relative_to(folder), path.read_bytes())
  for (split, scene), rows in built.items():
    print(f'{records.scene_file(out, split, scene)}: {len(rows)} scenarios')
  print(f'{total} scenarios from {cards}')


def compare(built: dict[tuple[str, str], list[dict]], out: pathlib.Path) -> None:
  """Compare what the cards give with the files of a folder, byte for byte.

  Raises:
    DataError: names the first file, line and field that differ.
  """
  with tempfile.TemporaryDirectory() as folder:
    build_lib.write(built, pathlib.Path(folder))
    for split, scene in built:
      path = records.scene_file(out, split, scene)
      if not path.exists():
        raise DataError(f'{path}: no such file; run `build` to write it')
      new = records.scene_file(pathlib.Path(folder), split, scene).read_bytes()
      old = path.read_bytes()
      if new != old:
        raise DataError(f'{path}{_first_difference(old, new)}; run `build` and commit the result')


def _first_difference(old: bytes, new: bytes) -> str:
  lines = itertools.zip_longest(old.splitlines(keepends=True), new.splitlines(keepends=True))
  number, (there, built) = next((n, pair) for n, pair in enumerate(lines, start=1) if pair[0] != pair[1])
  if there is None:
    return f': ends before line {number}, where the cards give {json.loads(built)["id"]!r}'
  if built is None:
    return f':{number}: is more than the cards give'
  record = json.loads(built)
  try:
    found = json.loads(there)
    field = next(name for name in record if found.get(name, record) != record[name])
  except (ValueError, AttributeError, StopIteration):
    return f':{number}: differs from what the cards give for {record["id"]!r}'
  return f':{number}: field `{field}` differs from what the cards give for {record["id"]!r}'
