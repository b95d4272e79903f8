"""Read scenario files: parse, validate, and say exactly what is wrong and where.

Format: EIBench, arXiv 2606.15532; see `eijax.scenarios.record`. Unknown keys are kept in
`Scenario.extra`, nested ones under the name of their parent.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any, NoReturn

from eijax import jsonl
from eijax.errors import DataError
from eijax.scenarios.record import SCENES, SPLITS, Anchors, Appraisal, Cue, Scenario

_APPRAISAL_LISTS = ('facts', 'needs', 'soothes', 'inflames')
_APPRAISAL_SINGLES = {
    'support': (),
    'defense': ('boundary', 'holds', 'yields', 'way_out'),
    'repair': ('act', 'effect', 'amends'),
    'charm': (),
}
_ANCHOR_FIELDS = {
    'initial_anger': 'initial_calibration.initial_anger',
    'initial_trust': 'initial_calibration.initial_trust',
    'target_anger': 'rub_goals.target_anger',
    'target_trust': 'rub_goals.target_trust',
    'worst_anger': 'worst_case.worst_anger_min',
    'worst_trust': 'worst_case.worst_trust_min',
}
_TOP_FIELDS = frozenset((
    'id', 'title', 'scene_tag', 'data_source', 'aggressor_profile', 'defender_profile',
    'goal_one_liner', 'success_criteria', 'must_avoid', 'initial_calibration', 'rub_goals',
    'worst_case', 'appraisal',
))
_MISSING = object()


def _fail(where: str, field: str, value: Any, rule: str, remedy: str) -> NoReturn:
  shown = 'missing' if value is _MISSING else repr(value)
  if len(shown) > 80:
    shown = shown[:77] + '...'
  raise DataError(f'{where}: field `{field}` = {shown} breaks the rule: {rule}; {remedy}')


def _get(obj: Mapping, field: str, where: str) -> Any:
  """Look up a dotted field; a parent that is no object is an error of that parent."""
  value: Any = obj
  names = field.split('.')
  for depth, name in enumerate(names):
    if not isinstance(value, Mapping):
      _fail(where, '.'.join(names[:depth]), value, 'must be a JSON object', 'mend the record')
    value = value.get(name, _MISSING)
  return value


def _text(obj: Mapping, field: str, where: str, allow_empty: bool = False) -> str:
  value = _get(obj, field, where)
  if not isinstance(value, str) or not (allow_empty or value.strip()):
    rule = 'must be a text' if allow_empty else 'must be a non-empty text'
    _fail(where, field, value, rule, 'write it as a JSON string')
  return value


def _texts(obj: Mapping, field: str, where: str) -> tuple[str, ...]:
  value = _get(obj, field, where)
  if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
    _fail(where, field, value, 'must be a list of texts', 'write it as ["...", "..."]')
  return tuple(value)


def _anchors(obj: Mapping, where: str) -> Anchors:
  levels = {}
  for name, field in _ANCHOR_FIELDS.items():
    value = _get(obj, field, where)
    # JSON true would pass as the integer 1.
    if isinstance(value, bool) or not isinstance(value, int):
      _fail(where, field, value, 'must be an integer in 0..100', 'write it without quotes or point')
    if not 0 <= value <= 100:
      _fail(where, field, value, 'must lie in 0..100', 'mend the anchor')
    levels[name] = value
  for lower, higher in (
      ('target_anger', 'initial_anger'),
      ('initial_anger', 'worst_anger'),
      ('worst_trust', 'initial_trust'),
      ('initial_trust', 'target_trust'),
  ):
    if levels[lower] >= levels[higher]:
      # The initial level is the fixed point: the other end is the one to move.
      initial, moved = (lower, higher) if lower.startswith('initial') else (higher, lower)
      past = 'above' if moved == higher else 'below'
      _fail(
          where, _ANCHOR_FIELDS[moved], levels[moved],
          f'{lower} < {higher} ({lower}={levels[lower]}, {higher}={levels[higher]})',
          f'move {moved} {past} {initial}={levels[initial]}, by 5 points for example',
      )
  return Anchors(**levels)


def _cue(value: Any, field: str, where: str) -> Cue:
  if not isinstance(value, Mapping) or set(value) != {'text', 'cues'}:
    _fail(where, field, value, 'must hold `text` and `cues`, no more',
          'write {"text": "...", "cues": ["...", ...]}')
  if not isinstance(value['text'], str) or not value['text'].strip():
    _fail(where, f'{field}.text', value['text'], 'must be a non-empty text', 'write the phrase')
  cues = value['cues']
  if not isinstance(cues, list) or not cues or not all(
      isinstance(cue, str) and cue.strip() for cue in cues
  ):
    _fail(where, f'{field}.cues', cues, 'must be a non-empty list of non-empty texts',
          'give at least one wording')
  return Cue(text=value['text'], cues=tuple(cues))


def _appraisal(obj: Mapping, scene: str, where: str) -> Appraisal | None:
  value = obj.get('appraisal')
  if value is None:
    return None
  if not isinstance(value, Mapping):
    _fail(where, 'appraisal', value, 'must be a JSON object', 'mend it or leave it out')
  singles = _APPRAISAL_SINGLES[scene]
  for name in value:
    # A misspelt key would silently weaken the simulated user.
    if name not in _APPRAISAL_LISTS + singles:
      _fail(where, f'appraisal.{name}', value[name], f'no such key in scene {scene!r}',
            f'use {", ".join(_APPRAISAL_LISTS + singles)}')
  fields: dict[str, Any] = {}
  for name in _APPRAISAL_LISTS:
    items = value.get(name, _MISSING)
    if not isinstance(items, list) or not items:
      _fail(where, f'appraisal.{name}', items, 'must be a non-empty list',
            'write [{"text": "...", "cues": [...]}, ...]')
    fields[name] = tuple(
        _cue(item, f'appraisal.{name}[{index}]', where) for index, item in enumerate(items)
    )
  for name in singles:
    if name not in value:
      _fail(where, f'appraisal.{name}', _MISSING, f'required in scene {scene!r}',
            'add {"text": "...", "cues": [...]}')
    fields[name] = _cue(value[name], f'appraisal.{name}', where)
  return Appraisal(**fields)


def _opening_line(obj: Mapping, scene: str, where: str) -> str | None:
  field = 'aggressor_profile.opening_line'
  if scene != 'charm':
    return _text(obj, field, where)
  value = _get(obj, field, where)
  if value is not _MISSING and value not in (None, ''):
    _fail(where, field, value, 'a charm scenario has no opening line (the model opens)',
          'remove the key')
  return None


def _extra(obj: Mapping) -> dict[str, Any]:
  known = {
      'aggressor_profile': {'system_prompt', 'opening_line'},
      'defender_profile': {'system_prompt'},
      'initial_calibration': {'initial_anger', 'initial_trust'},
      'rub_goals': {'target_anger', 'target_trust'},
      'worst_case': {'worst_anger_min', 'worst_trust_min'},
  }
  extra = {key: value for key, value in obj.items() if key not in _TOP_FIELDS}
  for parent, names in known.items():
    rest = {key: value for key, value in obj[parent].items() if key not in names}
    if rest:
      extra[parent] = rest
  return extra


def parse_record(obj: Any, where: str) -> Scenario:
  """Build a Scenario from one decoded JSON object.

  Args:
    obj: the record, or the record wrapped as {"row": record}.
    where: FILE:LINE, for error messages.
  Raises:
    DataError: names place, field, value, rule and remedy.
  """
  if isinstance(obj, Mapping) and isinstance(obj.get('row'), Mapping) and 'id' not in obj:
    around = {key: value for key, value in obj.items() if key != 'row'}
    obj = {**around, **obj['row']}
  if not isinstance(obj, Mapping):
    _fail(where, '(the line)', obj, 'must be a JSON object', 'write one scenario a line')
  scene = _text(obj, 'scene_tag', where)
  if scene not in SCENES:
    _fail(where, 'scene_tag', scene, f'must be one of {", ".join(SCENES)}', 'use the lower-case name')
  return Scenario(
      id=_text(obj, 'id', where),
      title=_text(obj, 'title', where, allow_empty=True),
      scene=scene,
      data_source=_text(obj, 'data_source', where, allow_empty=True),
      aggressor_prompt=_text(obj, 'aggressor_profile.system_prompt', where),
      opening_line=_opening_line(obj, scene, where),
      defender_prompt=_text(obj, 'defender_profile.system_prompt', where),
      goal=_text(obj, 'goal_one_liner', where, allow_empty=True),
      success_criteria=_texts(obj, 'success_criteria', where),
      must_avoid=_texts(obj, 'must_avoid', where),
      anchors=_anchors(obj, where),
      appraisal=_appraisal(obj, scene, where),
      extra=_extra(obj),
  )


def _load_file(path: pathlib.Path, seen: dict[str, str], scene: str | None) -> list[Scenario]:
  """Load one file; `seen` maps each id to its place, over all files of a split."""
  scenarios = []
  for number, obj in jsonl.read(path):
    where = f'{path}:{number}'
    scenario = parse_record(obj, where)
    if scene is not None and scenario.scene != scene:
      _fail(where, 'scene_tag', scenario.scene, f'must be {scene!r} in this file',
            f'move the record to {scenario.scene}_final.jsonl')
    if scenario.id in seen:
      _fail(where, 'id', scenario.id, f'must be unique, and stands at {seen[scenario.id]} already',
            'give the record another id')
    seen[scenario.id] = where
    scenarios.append(scenario)
  if not scenarios:
    raise DataError(f'{path}: holds no scenario; add at least one record')
  return scenarios


def load_file(path: str | os.PathLike) -> tuple[Scenario, ...]:
  """Load one JSON-lines file of scenarios, in file order. Raises DataError."""
  return tuple(_load_file(pathlib.Path(path), {}, None))


def load_split(folder: str | os.PathLike, split: str) -> tuple[Scenario, ...]:
  """Load the four scene files of `folder/split`, in the order of SCENES.

  Raises:
    DataError: if the folder, the split or one of its files is missing, or a record
      breaks a rule.
  """
  if split not in SPLITS:
    raise DataError(f'split={split!r} must be one of {", ".join(SPLITS)}; name one of them')
  root = pathlib.Path(folder) / split
  if not root.is_dir():
    raise DataError(
        f'{root}: no such folder; scenarios must hold {" and ".join(SPLITS)} folders, '
        f'each with {", ".join(f"{scene}_final.jsonl" for scene in SCENES)}'
    )
  seen: dict[str, str] = {}
  scenarios: list[Scenario] = []
  for scene in SCENES:
    scenarios += _load_file(root / f'{scene}_final.jsonl', seen, scene)
  return tuple(scenarios)
