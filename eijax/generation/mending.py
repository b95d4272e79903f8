"""Mend one record of a set that exists: by rule, and by the model where a sheet is broken."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from eijax.curation.sections import AGGRESSOR, DEFENDER, missing_sections
from eijax.chat.tolerant_json import find_objects
from eijax.errors import DataError, UsageError
from eijax.generation import anchors, prompts, sheets, stages
from eijax.generation.asking import Asker, Rejected
from eijax.scenarios.record import SCENES, SPLITS

_PROFILES = {'user': ('aggressor_profile', AGGRESSOR), 'partner': ('defender_profile', DEFENDER)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
  """One line of a scene file. number: from 1; key: names the line and its content."""

  split: str
  scene: str
  number: int
  text: str

  @property
  def key(self) -> str:
    digest = hashlib.sha256(self.text.encode('utf-8', 'replace')).hexdigest()[:12]
    return f'{self.split}/{self.scene}/{self.number:06d}-{digest}'


def read_lines(folder: pathlib.Path) -> list[Line]:
  """All lines of a set's scene files, broken ones included; raises if there are none."""
  lines = []
  for split in SPLITS:
    for scene in SCENES:
      path = folder / split / f'{scene}_final.jsonl'
      if not path.is_file():
        continue
      try:
        content = path.read_bytes().removeprefix(b'\xef\xbb\xbf').decode('utf-8', 'replace')
      except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}); check the path') from None
      for number, text in enumerate(content.split('\n'), start=1):
        if text.strip():
          lines.append(Line(split=split, scene=scene, number=number, text=text.strip('\r')))
  if not lines:
    raise UsageError(f'{folder}: holds no {{train,test}}/SCENE_final.jsonl; name the folder of a set')
  return lines


def mend(line: Line, asker: Asker | None) -> tuple[dict[str, Any], list[str]]:
  """Return the mended record, and what was changed; a sound record comes back as it was.

  Args:
    asker: None mends by rule alone.
  Raises:
    Rejected: the record cannot be mended.
  """
  record, changes = _decode(line.text)
  record = dict(record)
  scene = str(record.get('scene_tag', '')).strip().lower() or line.scene
  if scene not in SCENES:
    raise Rejected(f'invalid: `scene_tag` = {record.get("scene_tag")!r} must be one of {", ".join(SCENES)}')
  if record.get('scene_tag') != scene:
    changes.append(f'scene_tag {record.get("scene_tag")!r} -> {scene!r}')
    record['scene_tag'] = scene
  _mend_texts(record, changes)
  _mend_anchors(record, changes)
  _mend_sheets(record, scene, changes, line.key, asker)
  stages.validate(record)
  return record, changes


def _decode(text: str) -> tuple[dict[str, Any], list[str]]:
  changes: list[str] = []
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    found = find_objects(text)
    if len(found) != 1 or found[0].is_cut:
      raise Rejected('invalid: the line is no JSON object, and none can be read out of it') from None
    value = found[0].value
    changes.append('JSON mended')
  if isinstance(value, Mapping) and isinstance(value.get('row'), Mapping) and 'id' not in value:
    value = {**{key: item for key, item in value.items() if key != 'row'}, **value['row']}
    changes.append('taken out of `row`')
  if not isinstance(value, dict):
    raise Rejected('invalid: the line must hold one JSON object')
  return value, changes


def _mend_texts(record: dict[str, Any], changes: list[str]) -> None:
  for name in ('title', 'data_source', 'goal_one_liner'):
    if record.get(name) is None:
      record[name] = ''
      changes.append(f'{name} added, empty')
  for name in ('success_criteria', 'must_avoid'):
    value = record.get(name)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
      continue
    if isinstance(value, str):
      value = [line.strip('-•* \t') for line in value.split('\n')]
    items = value if isinstance(value, list) else []
    record[name] = [str(item).strip() for item in items if str(item).strip()]
    changes.append(f'{name} written as a list of texts')
  if isinstance(record.get('id'), int) and not isinstance(record['id'], bool):
    record['id'] = str(record['id'])
    changes.append('id written as a text')


def _mend_anchors(record: dict[str, Any], changes: list[str]) -> None:
  try:
    repaired, moved = anchors.repair(anchors.of_record(record))
  except anchors.AnchorError as error:
    raise Rejected(f'invalid: anchor {error}') from None
  if moved:
    anchors.put(record, repaired)
    changes += moved


def _mend_sheets(
  record: dict[str, Any], scene: str, changes: list[str], item: str, asker: Asker | None
) -> None:
  """Leave sound sheets as they are; write others again, by rule if that is enough."""
  value: dict[str, Any] = {}
  texts: dict[str, str] = {}
  faults: list[str] = []
  for role, (field, _) in _PROFILES.items():
    profile = record.get(field)
    record[field] = dict(profile) if isinstance(profile, Mapping) else {}
    text = record[field].get('system_prompt')
    texts[role] = text if isinstance(text, str) else ''
  language = sheets.language_of(texts['user'])
  for role, (field, sheet_role) in _PROFILES.items():
    value[role], strange = sheets.parse(texts[role], role)
    is_plain = not missing_sections(texts[role], sheet_role) and '```' not in texts[role]
    faults += sheets.faults(value[role], role, language)
    if not is_plain:
      # Written again, the sheet would lose what stands outside its sections.
      faults += [f"{role}'s sheet holds {what}" for what in strange]
      texts[role] = sheets.render(value[role], role, language)
      changes.append(f'{field} written in the form of a sheet')
  value['opening_line'] = _mend_opening(record['aggressor_profile'], scene, changes)
  if scene != 'charm':
    faults += sheets.opening_faults(value['opening_line'], language)
  if faults:
    if asker is None:
      raise Rejected(f'format: {"; ".join(faults)}')
    original = {role: record[field].get('system_prompt') or '' for role, (field, _) in _PROFILES.items()}
    shown = '\n\n'.join(f"{role}'s sheet:\n{text}" for role, text in original.items())
    if scene != 'charm':
      shown += f'\n\nopening_line: {value["opening_line"]}'
    messages = prompts.render('reclean', language, scene=scene, sheets=shown, faults=faults)
    value = asker.ask(
      item, 'reclean', messages, stages.check_reclean(scene, language),
      temperature=stages.TEMPERATURES['reclean'], language=language,
    )  # fmt: skip
    for role in _PROFILES:
      texts[role] = sheets.render(value[role], role, language)
    changes.append('sheets mended by the model: ' + '; '.join(faults))
  for role, (field, _) in _PROFILES.items():
    record[field]['system_prompt'] = texts[role]
  if value['opening_line']:
    record['aggressor_profile']['opening_line'] = value['opening_line']


def _mend_opening(profile: dict[str, Any], scene: str, changes: list[str]) -> str | None:
  opening = profile.get('opening_line')
  if scene == 'charm':
    if 'opening_line' in profile:
      del profile['opening_line']
      changes.append('opening_line removed: the partner opens in charm')
    return None
  tidied = sheets.tidy_opening(opening) if isinstance(opening, str) else ''
  if tidied != opening:
    changes.append('opening_line tidied')
  return tidied


def with_free_ids(records: list[tuple[str, dict[str, Any]]]) -> Iterator[tuple[str, dict[str, Any]]]:
  """The same (split, record) pairs, with a number behind every id that was there before."""
  taken = {record['id'] for _, record in records}
  seen: set[str] = set()
  for split, record in records:
    free, number = record['id'], 2
    while free in seen or (number > 2 and free in taken):
      free, number = f'{record["id"]}-{number}', number + 1
    seen.add(free)
    if free != record['id']:
      record = {**record, 'id': free, 'cleaned': [*record.get('cleaned', ()), f'id {record["id"]!r} -> {free!r}']}
    yield split, record
