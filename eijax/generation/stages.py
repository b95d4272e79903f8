"""One new scenario, from its seed combination to a record, stage by stage.

Order and temperatures follow EIBench, arXiv 2606.15532: expansion (1.0), goal (0.2), worst case
(0.2), anchor repair by rule, format check with a re-clean by the model where it fails. The
appraisal is our own last stage. What an answer must hold is checked here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from eijax import seeds
from eijax.errors import DataError
from eijax.generation import anchors, prompts, sheets
from eijax.generation.asking import Asker, Fault, Rejected
from eijax.generation.pools import Combination
from eijax.scenarios.cards import CONTENT_FLAGS, SINGLES
from eijax.scenarios.load import parse_record

DATA_SOURCE = 'eijax-generated'
TEMPERATURES = {'expand': 1.0, 'goal': 0.2, 'worst': 0.2, 'reclean': 0.2, 'appraisal': 0.2}
_LISTS = ('facts', 'needs', 'soothes', 'inflames')
# Sheets a model may have mangled a little are worth a re-clean; with less than this it starts anew.
_MIN_SECTIONS = 5


def text_of(obj: Mapping[str, Any], name: str) -> str:
  value = obj.get(name)
  if not isinstance(value, str) or not value.strip():
    raise Fault(f'`{name}` = {str(value)[:60]!r} must be a non-empty text')
  return ' '.join(value.split())


def texts_of(obj: Mapping[str, Any], name: str, least: int = 2) -> list[str]:
  value = obj.get(name)
  if isinstance(value, str):
    value = [line.strip('-•* \t') for line in value.split('\n')]
  if not isinstance(value, list):
    raise Fault(f'`{name}` = {str(value)[:60]!r} must be a list of texts')
  found = [' '.join(item.split()) for item in value if isinstance(item, str) and item.strip()]
  if len(found) < least:
    raise Fault(f'`{name}` must hold at least {least} texts')
  return found


def read_sheets(obj: Mapping[str, Any], scene: str) -> dict[str, Any]:
  """Both sheets and the opening line from an answer, tidied; what is missing is left out."""
  value: dict[str, Any] = {}
  for role, other in (('user', 'aggressor'), ('partner', 'defender')):
    value[role] = sheets.from_object(obj.get(role, obj.get(other)), role)
  opening = obj.get('opening_line')
  if opening is None and isinstance(obj.get('user'), Mapping):
    opening = obj['user'].get('opening_line')
  value['opening_line'] = (
    None if scene == 'charm' else sheets.tidy_opening(opening if isinstance(opening, str) else '')
  )
  return value


def sheet_faults(value: Mapping[str, Any], scene: str, language: str) -> list[str]:
  """The format check: everything that is wrong with both sheets and the opening line."""
  found = [fault for role in sheets.ROLES for fault in sheets.faults(value[role], role, language)]
  if scene != 'charm':
    found += sheets.opening_faults(value['opening_line'] or '', language)
  return found


def check_expand(scene: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  def check(obj: Mapping[str, Any]) -> dict[str, Any]:
    value = read_sheets(obj, scene)
    num_sections = len(value['user']) + len(value['partner'])
    if num_sections < _MIN_SECTIONS or 'background' not in value['user']:
      raise Fault('`user` and `partner` must be objects that hold all sections of both sheets')
    flags = obj.get('content_flags')
    flags = [flag for flag in flags if flag in CONTENT_FLAGS] if isinstance(flags, list) else []
    return {'title': text_of(obj, 'title').strip('"“”《》')[:120], 'content_flags': flags, **value}

  return check


def check_goal(obj: Mapping[str, Any]) -> dict[str, Any]:
  value: dict[str, Any] = {
    'goal_one_liner': text_of(obj, 'goal_one_liner'),
    'success_criteria': texts_of(obj, 'success_criteria'),
    'must_avoid': texts_of(obj, 'must_avoid'),
  }
  for name in ('initial_anger', 'initial_trust', 'target_anger', 'target_trust'):
    value[name] = _number(obj, name)
  return value


def check_worst(obj: Mapping[str, Any]) -> dict[str, Any]:
  return {
    'worst_anger': _number(obj, 'worst_anger_min'),
    'worst_trust': _number(obj, 'worst_trust_min'),
    'reason': text_of(obj, 'reason'),
  }


def _number(obj: Mapping[str, Any], name: str) -> float:
  try:
    return anchors.number(obj.get(name), name)
  except anchors.AnchorError as error:
    raise Fault(str(error)) from None


def check_reclean(scene: str, language: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  def check(obj: Mapping[str, Any]) -> dict[str, Any]:
    value = read_sheets(obj, scene)
    found = sheet_faults(value, scene, language)
    if found:
      raise Fault('; '.join(found))
    return value

  return check


def reclean(
  asker: Asker, item: str, value: Mapping[str, Any], scene: str, language: str, faults: list[str]
) -> dict[str, Any]:
  """Have the model mend sheets; the answer holds no fault any more. Raises Rejected."""
  shown = prompts.as_json('', value['user'], value['partner'], value['opening_line'])
  messages = prompts.render('reclean', language, scene=scene, sheets=shown, faults=faults)
  return asker.ask(
    item, 'reclean', messages, check_reclean(scene, language),
    temperature=TEMPERATURES['reclean'], language=language,
  )  # fmt: skip


def read_cue(value: Any, name: str) -> dict[str, Any]:
  """One {"text", "cues"} of an appraisal; cues may also come as one text."""
  if isinstance(value, list) and len(value) == 1:
    value = value[0]
  if not isinstance(value, Mapping):
    raise Fault(f'`{name}` must be {{"text": "...", "cues": ["..."]}}')
  cues = value.get('cues')
  if isinstance(cues, str):
    cues = cues.replace('；', '/').replace(';', '/').split('/')
  cues = cues if isinstance(cues, list) else []
  cues = [' '.join(cue.lower().split()) for cue in cues if isinstance(cue, str) and cue.strip()]
  if not cues:
    raise Fault(f'`{name}.cues` must be a list of texts')
  return {'text': text_of(value, 'text'), 'cues': list(dict.fromkeys(cues))}


def check_appraisal(scene: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  def check(obj: Mapping[str, Any]) -> dict[str, Any]:
    inner = obj.get('appraisal')
    obj = inner if isinstance(inner, Mapping) else obj
    value: dict[str, Any] = {}
    for name in _LISTS:
      items = obj.get(name)
      if not isinstance(items, list) or len(items) < 2:
        raise Fault(f'`{name}` must be a list of at least 2 entries')
      value[name] = [read_cue(item, f'{name}[{index}]') for index, item in enumerate(items)]
    for name in SINGLES[scene]:
      value[name] = read_cue(obj.get(name), name)
    return value

  return check


def make(
  asker: Asker, combination: Combination, examples: prompts.Examples, *,
  language: str, seed: int, model: str, with_appraisal: bool,
) -> dict[str, Any]:  # fmt: skip
  """Run all stages of one combination; finished ones come from the journal.

  Returns:
    the record, complete and valid; not yet compared with other records.
  Raises:
    Rejected: a stage gave no usable answer.
  """
  item, scene = combination.key, combination.scene

  def ask(stage: str, check: Callable, **values: Any) -> dict[str, Any]:
    messages = prompts.render(stage, language, scene=scene, **values)
    return asker.ask(item, stage, messages, check, temperature=TEMPERATURES[stage], language=language)

  shown = examples.choose(scene, seeds.derive_seed('examples', seed, item))
  draft = ask('expand', check_expand(scene), seeds=combination.texts(language), examples=shown)
  record = _begin(combination, draft, language, seed, model)
  _put_sheets(record, draft, language)
  both = {
    'user_sheet': record['aggressor_profile']['system_prompt'],
    'partner_sheet': record['defender_profile']['system_prompt'],
  }
  goal = ask('goal', check_goal, opening_line=draft['opening_line'], **both)
  start = {name: anchors.rounded(goal[name]) for name in ('initial_anger', 'initial_trust')}
  worst = ask('worst', check_worst, goal=goal['goal_one_liner'], **start, **both)
  _put_goal(record, goal, worst)
  faults = sheet_faults(draft, scene, language)
  if faults:
    mended = reclean(asker, item, draft, scene, language, faults)
    _put_sheets(record, mended, language)
    record['generation']['recleaned'] = True
  if with_appraisal:
    both['user_sheet'] = record['aggressor_profile']['system_prompt']
    both['partner_sheet'] = record['defender_profile']['system_prompt']
    record['appraisal'] = ask(
      'appraisal', check_appraisal(scene), criteria=goal['success_criteria'], avoid=goal['must_avoid'],
      keys=[*_LISTS, *SINGLES[scene]], **both,
    )  # fmt: skip
  validate(record)
  return record


def validate(record: Mapping[str, Any]) -> None:
  """Raises Rejected with the rule that a record breaks."""
  try:
    parse_record(record, str(record.get('id')))
  except DataError as error:
    raise Rejected(f'invalid: {error}') from None


def _begin(
  combination: Combination, draft: Mapping[str, Any], language: str, seed: int, model: str
) -> dict[str, Any]:
  """The keys in the order of the built set."""
  return {
    'id': f'{combination.scene}-gen-{language}-{combination.digest}',
    'title': draft['title'],
    'scene_tag': combination.scene,
    'data_source': DATA_SOURCE,
    **combination.texts(language),
    'content_flags': draft['content_flags'],
    'generation': {
      'combination': combination.key,
      'language': language,
      'model': model,
      'seed': seed,
      'prompts_version': prompts.VERSION,
    },
  }


def _put_sheets(record: dict[str, Any], value: Mapping[str, Any], language: str) -> None:
  profile = {'system_prompt': sheets.render(value['user'], 'user', language)}
  if value['opening_line'] is not None:
    profile['opening_line'] = value['opening_line']
  record['aggressor_profile'] = profile
  record['defender_profile'] = {
    'system_prompt': sheets.render(value['partner'], 'partner', language)
  }


def _put_goal(record: dict[str, Any], goal: Mapping[str, Any], worst: Mapping[str, Any]) -> None:
  for name in ('goal_one_liner', 'success_criteria', 'must_avoid'):
    record[name] = goal[name]
  repaired, changes = anchors.repair({**goal, **worst})
  anchors.put(record, repaired)
  record['worst_case']['reason'] = worst['reason']
  moved = [change for change in changes if not _same_number(change)]
  if moved:
    record['generation']['anchors_repaired'] = moved


def _same_number(change: str) -> bool:
  """Whether a repair only wrote 60.0 as 60."""
  before, after = change.split(' ', 1)[1].split(' -> ')
  return before in (after, f'{after}.0')
