"""What a run writes beside its journal: the scenario files, what was rejected, a summary line."""

import collections
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import tqdm

from eijax import jsonl
from eijax.generation.asking import Asker
from eijax.generation.journal import Journal

REJECTED = 'rejected.jsonl'


def write(folder: pathlib.Path, records: Iterable[tuple[str, Mapping[str, Any]]], rejected: Iterable[Mapping]) -> None:
  """Write SPLIT/SCENE_final.jsonl for every split and scene that has records, and rejected.jsonl.

  Args:
    records: (split, record), in the order of the files.
    rejected: journal entries of items that were given up.
  """
  files = collections.defaultdict(list)
  for split, record in records:
    files[split, record['scene_tag']].append(dict(record))
  for (split, scene), rows in files.items():
    jsonl.write_lines(folder / split / f'{scene}_final.jsonl', rows)
  jsonl.write_lines(
    folder / REJECTED,
    [{'item': entry['item'], 'reason': entry.get('reason'), 'record': entry.get('record')} for entry in rejected],
  )


def show_progress(bar: tqdm.tqdm, journal: Journal, asker: Asker | None, ended: int) -> None:
  """Bring the bar to `ended` items, with counts over all runs in this folder."""
  bar.set_postfix_str(
    f'rejected {journal.num_ended("rejected")}, asked again {journal.num_faults}, '
    f'resent {asker.num_retries if asker else 0}, tokens {journal.tokens_in:,} in {journal.tokens_out:,} out',
    refresh=False,
  )
  bar.n = ended
  bar.refresh()


def summary(journal: Journal, asker: Asker | None) -> str:
  return (
    f'{journal.num_ended("accepted")} accepted, {journal.num_ended("rejected")} rejected ({journal.folder / REJECTED}); '
    f'{journal.num_calls} calls, {journal.num_faults} answers asked for again, '
    f'{asker.num_retries if asker else 0} requests resent in this run; '
    f'tokens: {journal.tokens_in:,} in, {journal.tokens_out:,} out'
  )
