"""Read a set for inspection: every record with its place, every fault instead of the first."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from eijax import jsonl
from eijax.errors import DataError, UsageError
from eijax.scenarios.load import parse_record
from eijax.scenarios.record import SCENES, SPLITS, Scenario


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One record of a set. raw: as the file has it; where: FILE:LINE."""

  split: str
  where: str
  scenario: Scenario
  raw: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Violation:
  """One broken rule. check: name of the rule; text: place, value and rule."""

  check: str
  text: str


def scene_file(folder: str | os.PathLike, split: str, scene: str) -> pathlib.Path:
  """Where the scenarios of one scene and split stand."""
  return pathlib.Path(folder) / split / f'{scene}_final.jsonl'


def only_folder(arguments: Sequence[str], usage: str) -> pathlib.Path:
  """The one folder that a subcommand is given.

  Raises:
    UsageError: none or several are given, or it is no folder.
  """
  if len(arguments) != 1:
    raise UsageError(f'arguments={" ".join(arguments)!r} must be one folder; usage: {usage}')
  folder = pathlib.Path(arguments[0])
  if not folder.is_dir():
    raise UsageError(
      f'DIR={folder} must be a folder that holds {" or ".join(SPLITS)}, and does not exist; check the path'
    )
  return folder


def read_split_folder(folder: pathlib.Path, split: str) -> tuple[list[Entry], list[Violation]]:
  """Read the scene files that are there, in the order of SCENES; never stops at a fault."""
  entries, faults = [], []
  for scene in SCENES:
    path = folder / f'{scene}_final.jsonl'
    if not path.exists():
      continue
    try:
      for number, raw in jsonl.read(path):
        where = f'{path}:{number}'
        try:
          scenario = parse_record(raw, where)
        except DataError as error:
          faults.append(Violation(check='loads', text=str(error)))
          continue
        if scenario.scene != scene:
          faults.append(Violation(
            check='loads',
            text=f'{where}: field `scene_tag` = {scenario.scene!r} must be {scene!r} in this file; '
            f'move the record to {scenario.scene}_final.jsonl',
          ))
        entries.append(Entry(split=split, where=where, scenario=scenario, raw=raw))
    except DataError as error:  # Not JSON: the rest of this file cannot be trusted.
      faults.append(Violation(check='loads', text=str(error)))
  return entries, faults


def read_set(
  folder: str | os.PathLike, splits: Sequence[str] = SPLITS
) -> tuple[list[Entry], list[Violation]]:
  """Read a set, splits in the order given."""
  entries, faults = [], []
  for split in splits:
    found, broken = read_split_folder(pathlib.Path(folder) / split, split)
    entries += found
    faults += broken
  return entries, faults


def read_sound_set(folder: str | os.PathLike, splits: Sequence[str] = SPLITS) -> list[Entry]:
  """Read a set that must hold no broken record.

  Raises:
    DataError: at the first fault, or if there is no record.
  """
  entries, faults = read_set(folder, splits)
  if faults:
    raise DataError(f'{faults[0].text} ({len(faults)} such faults in {folder}; see `validate`)')
  if not entries:
    raise DataError(
      f'{folder}: holds no scenario; needs {" or ".join(f"{split}/" for split in splits)} '
      f'with {", ".join(f"{scene}_final.jsonl" for scene in SCENES)}'
    )
  return entries
