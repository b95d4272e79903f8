"""The sections of a profile: which a sheet must have, and which it lacks."""

import re

AGGRESSOR = 'aggressor'
DEFENDER = 'defender'
_HEADING = re.compile(r'^[ \t]*#{1,6}[ \t]*(.+?)[ \t#]*$', re.M)
# Section -> wordings, English and Chinese. A heading counts for the first section that it fits.
_WORDINGS = {
  'background': r'background|背景',
  'speaking style and personality': r'speaking|style|personality|说话|风格|性格',
  'known facts': r'facts|已知|事实',
  'behaviour logic and preferences': r'behavio|logic|preferences|行为|逻辑|偏好',
  'role and stance': r'\brole\b|stance|角色|立场',
  'purpose': r'purpose|\bgoal|目的|目标',
}
_REQUIRED = {
  AGGRESSOR: tuple(_WORDINGS),
  DEFENDER: ('background', 'known facts', 'role and stance', 'purpose'),
}
_NAMES = {(DEFENDER, 'purpose'): 'core goal'}


def split_sections(sheet: str) -> dict[str, str]:
  """Section -> its text. Headings that fit no section are left out; equal ones are joined."""
  found: dict[str, str] = {}
  headings = list(_HEADING.finditer(sheet))
  for heading, following in zip(headings, [*headings[1:], None]):
    body = sheet[heading.end() : following.start() if following else len(sheet)].strip()
    for section, wording in _WORDINGS.items():
      if re.search(wording, heading.group(1), re.I):
        found[section] = f'{found[section]}\n{body}'.strip() if section in found else body
        break
  return found


def missing_sections(sheet: str, role: str) -> tuple[str, ...]:
  """Name the sections that a sheet lacks or leaves empty, in any order and in wordings near ours.

  Args:
    sheet: text with `###` headings.
    role: AGGRESSOR (six sections) or DEFENDER (four).
  """
  found = split_sections(sheet)
  return tuple(_NAMES.get((role, name), name) for name in _REQUIRED[role] if not found.get(name))


def facts(sheet: str) -> tuple[str, ...]:
  """The lines of the section of known facts, without their bullets."""
  lines = split_sections(sheet).get('known facts', '').splitlines()
  return tuple(text for line in lines if (text := re.sub(r'^\s*(?:[-*•·]|\d+[.、)])\s*', '', line).strip()))
