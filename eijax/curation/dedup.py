"""Write a set without near-copies: dedup DIR --out DIR [--against DIR/test].

The first of several near-copies stays. A train scenario that is too close to a held-out one goes; so does one that
was made from the same seed combination.
"""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from eijax import jsonl
from eijax.curation import embedding, records, similarity
from eijax.curation.records import Entry
from eijax.errors import DataError, UsageError
from eijax.scenarios.record import SCENES, SPLITS

REPORT = 'dedup_report.json'
_NUM_SHOWN = 20
# A combination is one where at least so many of its parts are known.
_MIN_PARTS = 4
_PARTS = (('theme',), ('situation',), ('relationship',), ('setting',), ('intensity',), ('personality', 'temper'))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
  """Why an entry may not stand beside an earlier one. value: similarity in 0..1, 1 for what is the same."""

  other: int
  kind: str
  value: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Removal:
  """An entry that goes, and what it is too close to."""

  entry: Entry
  other: Entry
  kind: str
  value: float


def define_flags(flag_values: flags.FlagValues) -> None:
  flags.DEFINE_string('out', None, 'Folder for the set without near-copies, and for the report.', flag_values=flag_values)
  flags.DEFINE_string(
    'against', None, 'Held-out scenarios that no train scenario may be close to: a set, or its test folder.',
    flag_values=flag_values,
  )  # fmt: skip
  for name, default, text in (
    ('threshold_within', 0.5, 'Jaccard index from which on two of one split are near-copies, in 0..1.'),
    ('threshold_across', 0.2, 'Jaccard index from which on a train scenario is too close to a held-out one, in 0..1.'),
    ('embedding_threshold', 0.9, 'Cosine from which on two embeddings are near-copies, in 0..1.'),
  ):
    flags.DEFINE_float(name, default, text, flag_values=flag_values)
  flags.DEFINE_string(
    'embedding_url', None,
    f'Base URL of an OpenAI-compatible /v1/embeddings; its key comes from {embedding.KEY_VARIABLE}.',
    flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_string('embedding_model', None, 'Model of the embeddings.', flag_values=flag_values)


def run(flag_values: flags.FlagValues, arguments: list[str]) -> None:
  """Read a set, drop near-copies, write the rest.

  Raises:
    UsageError: a flag or folder that cannot be used.
    DataError: a broken record.
    EijaxError: the endpoint or the disk fails.
  """
  folder = records.only_folder(arguments, 'dedup DIR --out DIR')
  _check_flags(flag_values, folder)
  entries = records.read_sound_set(folder, ('test', 'train'))
  held_out = _read_held_out(pathlib.Path(flag_values.against)) if flag_values.against else []
  vectors = _embed(flag_values, [*held_out, *entries]) if flag_values.embedding_url else None
  kept, removed = dedup(
    entries, held_out, within=flag_values.threshold_within, across=flag_values.threshold_across,
    vectors=vectors, cosine=flag_values.embedding_threshold,
  )  # fmt: skip
  out = pathlib.Path(flag_values.out)
  _write(out, entries, kept)
  thresholds = {'within': flag_values.threshold_within, 'across': flag_values.threshold_across}
  if vectors is not None:
    thresholds |= {'embedding': flag_values.embedding_threshold, 'embedding_model': flag_values.embedding_model}
  jsonl.write_json(out / REPORT, _report(entries, kept, removed, thresholds))
  print('\n'.join(_summary(entries, kept, removed)))
  print(f'wrote {len(kept)} scenarios and {REPORT} to {out}')


def dedup(
  entries: Sequence[Entry], held_out: Sequence[Entry] = (), *, within: float = 0.5, across: float = 0.2,
  vectors: np.ndarray | None = None, cosine: float = 0.9,
) -> tuple[list[Entry], list[Removal]]:  # fmt: skip
  """Drop each entry that is too close to one that is kept before it; test entries come before train ones.

  Args:
    entries: a set.
    held_out: further entries that no train entry may be close to; they are compared, never dropped.
    within: Jaccard index of two near-copies in one split.
    across: Jaccard index of a train entry and a held-out one.
    vectors: float64[len(held_out) + len(entries), D], rows of length 1, or None.
    cosine: of two near-copies by these.
  Returns:
    (kept entries in their order, what was removed).
  """
  everything = [*held_out, *entries]
  ranked = sorted(range(len(held_out), len(everything)), key=lambda index: everything[index].split == 'train')
  train = [index for index in ranked if everything[index].split == 'train']
  test = [index for index in ranked if everything[index].split != 'train']
  matches: dict[int, list[Match]] = collections.defaultdict(list)
  guarded = [*range(len(held_out)), *test]
  for first, second, threshold in ((test, None, within), (train, None, within), (guarded, train, across)):
    for i, j, match_kind, value in _pairs(everything, first, second, threshold, vectors, cosine):
      matches[j].append(Match(other=i, kind=match_kind, value=value))
  kept, removed = set(range(len(held_out))), []
  for index in ranked:
    reasons = [match for match in matches[index] if match.other in kept]
    if reasons:
      reason = max(reasons, key=lambda match: match.value)
      removed.append(Removal(
        entry=everything[index], other=everything[reason.other], kind=reason.kind, value=reason.value
      ))
    else:
      kept.add(index)
  return [everything[index] for index in range(len(held_out), len(everything)) if index in kept], removed


def _pairs(
  everything: Sequence[Entry], first: Sequence[int], second: Sequence[int] | None, threshold: float,
  vectors: np.ndarray | None, cosine: float,
) -> Iterator[tuple[int, int, str, float]]:  # fmt: skip
  """Yield (earlier entry, later entry, kind, value) of all matches: of `first` in itself, or with `second`."""
  columns = first if second is None else second
  texts = [everything[index].scenario.aggressor_prompt for index in first]
  other_texts = None if second is None else [everything[index].scenario.aggressor_prompt for index in second]
  for i, j, value in similarity.closest_pairs(texts, other_texts, threshold):
    yield first[i], columns[j], 'text', value
  if vectors is not None and first and columns:
    products = vectors[list(first)] @ vectors[list(columns)].T
    for i, j in zip(*np.nonzero(products >= cosine)):
      if second is not None or i < j:
        yield first[i], columns[j], 'embedding', float(min(1.0, products[i, j]))
  yield from _same(everything, first, second, 'seed combination', lambda entry: combinations_of(entry.scenario.scene, entry.raw))
  if second is None:
    yield from _same(everything, first, None, 'id', lambda entry: {entry.scenario.id})


def _same(everything, first, second, kind, keys_of) -> Iterator[tuple[int, int, str, float]]:
  places = collections.defaultdict(list)
  for index in first:
    for key in keys_of(everything[index]):
      if second is None:
        for other in places[key]:
          yield other, index, f'same {kind}', 1.0
      places[key].append(index)
  for index in second or ():
    for key in keys_of(everything[index]):
      for other in places.get(key, ()):
        yield other, index, f'same {kind}', 1.0


def combinations_of(scene: str, raw: Mapping[str, Any]) -> set[tuple[str, ...]]:
  """What a record says that it was made from: `generation.combination`, and its theme, situation and so on."""
  raw = raw['row'] if isinstance(raw.get('row'), Mapping) and 'id' not in raw else raw
  found = set()
  generation = raw.get('generation')
  if isinstance(generation, Mapping) and isinstance(generation.get('combination'), str):
    found.add((generation['combination'],))
  parts = [
    next((raw[name].strip() for name in names if isinstance(raw.get(name), str)), '') for names in _PARTS
  ]
  if sum(map(bool, parts)) >= _MIN_PARTS:
    found.add((scene, *parts))
  return found


def _check_flags(flag_values: flags.FlagValues, folder: pathlib.Path) -> None:
  if not flag_values.out:
    raise UsageError('--out is missing; name a folder for the set without near-copies')
  out = pathlib.Path(flag_values.out)
  if out.resolve() == folder.resolve():
    raise UsageError(f'--out={out} must be another folder than DIR, which stays as it is; name a new one')
  for name in ('threshold_within', 'threshold_across', 'embedding_threshold'):
    value = flag_values[name].value
    if not 0 < value <= 1:
      raise UsageError(f'--{name}={value} must be above 0 and at most 1; use {flag_values[name].default}, say')
  if bool(flag_values.embedding_url) != bool(flag_values.embedding_model):
    raise UsageError('--embedding_url and --embedding_model belong together; give both or neither')


def _read_held_out(folder: pathlib.Path) -> list[Entry]:
  """The test split of a set, or the scene files of the folder itself."""
  inner = folder / 'test' if (folder / 'test').is_dir() else folder
  entries, faults = records.read_split_folder(inner, 'test')
  if faults:
    raise DataError(faults[0].text)
  if not entries:
    raise UsageError(
      f'--against={folder} must hold test/SCENE_final.jsonl or SCENE_final.jsonl, and holds none; check the path'
    )
  return entries


def _embed(flag_values: flags.FlagValues, entries: Sequence[Entry]) -> np.ndarray:
  key = os.environ.get(embedding.KEY_VARIABLE, '')
  with embedding.EmbeddingClient(flag_values.embedding_url, flag_values.embedding_model, key) as client:
    return client.embed([entry.scenario.aggressor_prompt for entry in entries])


def _write(out: pathlib.Path, entries: Iterable[Entry], kept: Iterable[Entry]) -> None:
  """Write the files that the set has, with what is kept; records as they were read."""
  kept = list(kept)
  present = {(entry.split, entry.scenario.scene) for entry in entries}
  for split in SPLITS:
    for scene in SCENES:
      if (split, scene) in present:
        rows = [entry.raw for entry in kept if (entry.split, entry.scenario.scene) == (split, scene)]
        jsonl.write_lines(records.scene_file(out, split, scene), rows)


def _report(
  entries: Sequence[Entry], kept: Sequence[Entry], removed: Sequence[Removal], thresholds: Mapping[str, Any]
) -> dict[str, Any]:
  return {
    'thresholds': dict(thresholds),
    'num_read': len(entries),
    'num_kept': len(kept),
    'removed': [
      {
        'id': item.entry.scenario.id, 'split': item.entry.split, 'reason': item.kind,
        'close_to': item.other.scenario.id, 'close_to_at': item.other.where, 'similarity': round(item.value, 4),
      }
      for item in removed
    ],
  }  # fmt: skip


def _summary(entries: Sequence[Entry], kept: Sequence[Entry], removed: Sequence[Removal]) -> list[str]:
  before = collections.Counter((entry.split, entry.scenario.scene) for entry in entries)
  after = collections.Counter((entry.split, entry.scenario.scene) for entry in kept)
  lines = [
    f'{split:<5} {scene:<8} {before[split, scene]:>5} -> {after[split, scene]:>5}'
    for split in SPLITS
    for scene in SCENES
    if before[split, scene]
  ]
  for kind, number in collections.Counter(item.kind for item in removed).most_common():
    lines.append(f'{number} removed for {kind}')
  for item in removed[:_NUM_SHOWN]:
    where = f'{item.entry.split} {item.entry.scenario.id}'
    lines.append(f'  {where}: {item.kind} {item.value:.3f} with {item.other.split} {item.other.scenario.id}')
  if len(removed) > _NUM_SHOWN:
    lines.append(f'  ... and {len(removed) - _NUM_SHOWN} more, all in {REPORT}')
  emptied = [f'{split}/{scene}' for (split, scene), number in before.items() if number and not after[split, scene]]
  if emptied:
    lines.append(f'warning: nothing is left in {", ".join(emptied)}, and no set can be read without it')
  return lines
