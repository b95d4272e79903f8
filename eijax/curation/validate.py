"""Check a set of scenarios against every rule: validate DIR [--strict].

Prints one line a check with the highest value observed and where it stands, then what breaks a rule.
Reads the authors' format too; Chinese profiles are compared by character 5-grams.
"""

import collections
import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence

from absl import flags

from eijax.curation import records, sections, similarity
from eijax.curation.records import Entry, Violation
from eijax.errors import DataError, UsageError
from eijax.scenarios.cards import CONTENT_FLAGS
from eijax.scenarios.record import SCENES, SPLITS

# Jaccard index of the 5-grams of two users' sheets: must stay below.
LIMIT_WITHIN = 0.5
LIMIT_ACROSS = 0.2
_ANCHOR_PARENTS = ('initial_calibration', 'rub_goals', 'worst_case')
_STRICT_KEYS = ('theme', 'situation', 'relationship', 'setting', 'content_flags')
_PLACEHOLDER = re.compile(r'\{\{?\s*[a-z_]+\s*\}?\}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
  """The outcome of one rule. observed: the highest value seen, or a number of records; where: whose it is."""

  name: str
  rule: str
  observed: str
  where: str = ''
  violations: tuple[Violation, ...] = ()


def define_flags(flag_values: flags.FlagValues) -> None:
  flags.DEFINE_bool(
    'strict', False,
    'Also ask for what the shipped set has: an appraisal, theme, situation, relationship, setting and known content '
    'flags in every record, and no {placeholder} left over.',
    flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_list(
    'splits', list(SPLITS), 'Splits that the set must hold; `train` for a generated one.', flag_values=flag_values
  )
  flags.DEFINE_integer(
    'num_listed', 50, 'Violations to print, 0 for all.', lower_bound=0, flag_values=flag_values
  )


def run(flag_values: flags.FlagValues, arguments: list[str]) -> None:
  """Print the checks of a folder.

  Raises:
    UsageError: no such folder or split.
    DataError: something breaks a rule.
  """
  folder = records.only_folder(arguments, 'validate DIR [--strict]')
  for split in flag_values.splits:
    if split not in SPLITS:
      raise UsageError(f'--splits has {split!r}, but must hold only {", ".join(SPLITS)}; name one or both of them')
  checks = check_set(folder, splits=flag_values.splits, strict=flag_values.strict)
  print('\n'.join(table(checks)))
  violations = [violation for check in checks for violation in check.violations]
  if not violations:
    print(f'{folder}: every check passes')
    return
  listed = violations[: flag_values.num_listed or None]
  print('\n' + '\n'.join(f'{violation.check}: {violation.text}' for violation in listed))
  if len(listed) < len(violations):
    print(f'... and {len(violations) - len(listed)} more (--num_listed=0 prints all)')
  raise DataError(f'{folder}: {len(violations)} violations, listed above; mend these records')


def check_set(folder: pathlib.Path, *, splits: Sequence[str] = SPLITS, strict: bool = False) -> list[Check]:
  """Apply every rule to a set; never stops at a violation."""
  entries, faults = records.read_set(folder, splits)
  faults += [
    Violation(check='loads', text=f'{path}: no such file; every split needs one file for each scene')
    for split in splits
    for scene in SCENES
    if not (path := records.scene_file(folder, split, scene)).exists()
  ]
  checks = [
    _loads(entries, [fault for fault in faults if not _is_about_anchors(fault)]),
    _unique(entries, 'ids', lambda entry: entry.scenario.id),
    _unique(entries, 'titles', lambda entry: ' '.join(similarity.tokens(entry.scenario.title))),
    _unique(entries, 'openings', lambda entry: ' '.join(similarity.tokens(entry.scenario.opening_line or ''))),
    _anchors(entries, [fault for fault in faults if _is_about_anchors(fault)]),
    _sections(entries, sections.AGGRESSOR, lambda entry: entry.scenario.aggressor_prompt),
    _sections(entries, sections.DEFENDER, lambda entry: entry.scenario.defender_prompt),
  ]
  by_split = {split: [entry for entry in entries if entry.split == split] for split in splits}
  checks += [_alike(f'within {split}', part, None, LIMIT_WITHIN) for split, part in by_split.items()]
  if set(SPLITS) <= set(splits):
    checks.append(_alike('train to test', by_split['train'], by_split['test'], LIMIT_ACROSS))
  return checks + (_strict(entries) if strict else [])


def table(checks: Iterable[Check]) -> list[str]:
  """One line a check, in columns."""
  rows = [
    ('FAIL' if check.violations else 'ok', check.name, check.rule, check.observed, check.where) for check in checks
  ]
  rows = [('', 'check', 'rule', 'observed', 'where'), *rows]
  widths = [max(len(row[column]) for row in rows) for column in range(4)]
  return [
    '  '.join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip() for row in rows
  ]


def _is_about_anchors(fault: Violation) -> bool:
  return any(f'field `{parent}' in fault.text for parent in _ANCHOR_PARENTS)


def _loads(entries: Sequence[Entry], faults: Sequence[Violation]) -> Check:
  return Check(
    name='loads', rule='every record is complete and typed', observed=f'{len(entries)} records',
    where=', '.join(
      f'{split} {number}' for split, number in collections.Counter(entry.split for entry in entries).items()
    ),
    violations=tuple(faults),
  )  # fmt: skip


def _unique(entries: Sequence[Entry], name: str, key: Callable[[Entry], str]) -> Check:
  """No key may stand twice in the whole set; records without one are left out."""
  places = collections.defaultdict(list)
  for entry in entries:
    if key(entry):
      places[key(entry)].append(entry)
  repeated = {value: found for value, found in places.items() if len(found) > 1}
  return Check(
    name=name, rule='none twice in the set', observed=f'{len(places)} different',
    where=f'{len(repeated)} repeated' if repeated else '',
    violations=tuple(
      Violation(
        check=name,
        text=f'{found[1].where}: {name[:-1]} {value!r} must be unique, and stands at '
        f'{", ".join(entry.where for entry in found if entry is not found[1])} too; give it another one',
      )
      for value, found in repeated.items()
    ),
  )  # fmt: skip


def _anchors(entries: Sequence[Entry], faults: Sequence[Violation]) -> Check:
  """Orders are checked where a record is read, and come here as faults."""
  uneven = [
    Violation(
      check='anchors',
      text=f'{entry.where}: {field} = {value} must be a multiple of 5; round it to {5 * round(value / 5)}',
    )
    for entry in entries
    for field, value in dataclasses.asdict(entry.scenario.anchors).items()
    if value % 5
  ]
  return Check(
    name='anchors', rule='ordered, multiples of 5', observed=f'{len(faults) + len(uneven)} off',
    violations=(*(dataclasses.replace(fault, check='anchors') for fault in faults), *uneven),
  )  # fmt: skip


def _sections(entries: Sequence[Entry], role: str, sheet: Callable[[Entry], str]) -> Check:
  name = f'{role} sections'
  missing = [(entry, sections.missing_sections(sheet(entry), role)) for entry in entries]
  violations = tuple(
    Violation(
      check=name,
      text=f'{entry.where}: {role}_profile.system_prompt of {entry.scenario.id} must have a section '
      f'{", ".join(names)}, with text in it; add `### {names[0].capitalize()}`',
    )
    for entry, names in missing
    if names
  )
  return Check(
    name=name, rule='all there, none empty', observed=f'{len(violations)} incomplete', violations=violations
  )


def _alike(name: str, part: Sequence[Entry], others: Sequence[Entry] | None, limit: float) -> Check:
  texts = [entry.scenario.aggressor_prompt for entry in part]
  other_texts = None if others is None else [entry.scenario.aggressor_prompt for entry in others]
  others = part if others is None else others
  closest = similarity.closest_pair(texts, other_texts)
  rule = f'5-gram Jaccard of users\' sheets < {limit:g}'
  if closest is None:
    return Check(name=name, rule=rule, observed='0.000')
  i, j, highest = closest
  pairs = similarity.closest_pairs(texts, other_texts, limit) if highest >= limit else []
  return Check(
    name=name, rule=rule, observed=f'{highest:.3f}',
    where=f'{part[i].scenario.id} and {others[j].scenario.id}',
    violations=tuple(
      Violation(
        check=name,
        text=f'{part[i].where} ({part[i].scenario.id}) and {others[j].where} ({others[j].scenario.id}): '
        f'Jaccard {value:.3f} must be below {limit:g}; rewrite one, or run `dedup`',
      )
      for i, j, value in pairs
    ),
  )  # fmt: skip


def _strict(entries: Sequence[Entry]) -> list[Check]:
  def check(name: str, rule: str, faults: Iterable[tuple[Entry, str]]) -> Check:
    violations = tuple(
      Violation(check=name, text=f'{entry.where}: {entry.scenario.id} {text}') for entry, text in faults
    )
    return Check(name=name, rule=rule, observed=f'{len(violations)} off', violations=violations)

  return [
    check(
      'appraisal', 'in every record',
      ((entry, 'has no `appraisal`; add it') for entry in entries if entry.scenario.appraisal is None),
    ),
    check(
      'keys', ', '.join(_STRICT_KEYS),
      (
        (entry, f'has no `{key}`; add it')
        for entry in entries for key in _STRICT_KEYS if key not in entry.scenario.extra
      ),
    ),
    check(
      'content flags', 'of the known ones',
      (
        (entry, f'has content flag {flag!r}, which must be one of {", ".join(CONTENT_FLAGS)}; use one of them')
        for entry in entries
        for flag in entry.scenario.extra.get('content_flags') or ()
        if flag not in CONTENT_FLAGS
      ),
    ),
    check(
      'placeholders', 'none left over',
      (
        (entry, f'still holds {match.group()}; fill it in')
        for entry in entries
        if (match := _PLACEHOLDER.search(json.dumps(entry.raw, ensure_ascii=False)))
      ),
    ),
  ]  # fmt: skip
