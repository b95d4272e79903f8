"""Profile sheets: their sections, how they are written, read back and checked.

A sheet is text with `###` headings. The user's (aggressor's) has six sections, the
partner's (defender's) four; see EIBench, arXiv 2606.15532. Reading is lenient: other heading
marks, other wordings, another order. Writing has one form.
"""

import re
from collections.abc import Mapping
from typing import Any

ROLES = ('user', 'partner')
SECTIONS = {
  'user': ('background', 'role', 'style', 'facts', 'logic', 'purpose'),
  'partner': ('background', 'role', 'facts', 'goal'),
}
HEADINGS = {
  'en': {
    'background': 'Background',
    'role': 'Role and stance',
    'style': 'Speaking style and personality',
    'facts': 'Known facts',
    'logic': 'Behaviour logic and preferences',
    'purpose': 'Purpose',
    'goal': 'Core goal',
  },
  'zh': {
    'background': '背景',
    'role': '角色与立场',
    'style': '说话风格与性格',
    'facts': '已知事实',
    'logic': '行为逻辑与偏好',
    'purpose': '目的',
    'goal': '核心目标',
  },
}
# In order: "核心目标" must not be read as "目标" of another section, and so on.
_NAMES = (
  ('background', re.compile(r'background|背景|身份')),
  ('style', re.compile(r'style|personality|manner|风格|性格|语气')),
  ('logic', re.compile(r'logic|preference|behaviou?r|逻辑|偏好|行为')),
  ('facts', re.compile(r'facts?\b|事实|已知')),
  ('role', re.compile(r'\brole|stance|position|角色|立场')),
  ('purpose', re.compile(r'purpose|\bgoals?\b|\baim|目的|目标|诉求')),
)
_HEADING = re.compile(
  r'^[ \t]*(?:#{1,6}[ \t]*(?P<hash>[^\n]+?)[ \t]*#*'
  r'|\*\*(?P<bold>[^*\n]{1,60})\*\*[ \t]*[:：]?'
  r'|【(?P<bracket>[^】\n]{1,40})】)[ \t]*$',
  re.M,
)
_HEADING_INLINE = re.compile(
  r'^[ \t]*(?:#{1,6}[ \t]*(?P<a>[^\n:：]{1,40})[:：]|\*\*(?P<b>[^*\n]{1,40}?)[:：]?\*\*[:：]?|【(?P<c>[^】\n]{1,40})】)'
  r'[ \t]*(?P<rest>\S[^\n]*)$',
  re.M,
)
_BULLET = re.compile(r'^[ \t]*(?:[-*•·–—]|\d{1,2}[.)、．]|[(（]\d{1,2}[)）])[ \t]*(?=\S)')
_FENCE = re.compile(r'^[ \t]*```\w*[ \t]*$\n?', re.M)
_CJK = re.compile(r'[\u3400-\u9fff]')
_LATIN = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")
_PLACEHOLDER = re.compile(
  r'\{\{?[^{}\n]{0,40}\}\}?|\[(?:name|your name|age|city|place|job|insert[^\]]*|姓名|名字|年龄|地点|职业)\]'
  # Upper case only: "xx" ends letters, and "todo" is Spanish.
  r'|<[A-Za-z_ ]{2,30}>|(?-i:\b(?:TODO|TBD)\b|(?<![A-Za-z])X{2,4}(?![A-Za-z]))|某某|××+',
  re.I,
)
_LEAK = re.compile(
  r'system prompt|language model|\bas an AI\b|few-shot|initial_|target_|worst_|'
  r'\b(?:anger|trust)\s*(?:level|score|value)?\s*[=:(]\s*\d|系统提示|语言模型'
  r'|作为(?:一个|一名)?AI|(?:愤怒|信任)(?:值|度)?\s*[=:：(（为]\s*\d',
  re.I,
)
_STAGE_DIRECTION = re.compile(r'^[ \t]*[(（\[【*][^)）\]】*\n]{1,80}[)）\]】*][ \t]*')
_QUOTES = {'"': '"', '“': '”', '「': '」', '『': '』', '‘': '’'}
MIN_FACTS = 3
_MIN_WORDS = {'background': 8, 'style': 5, 'logic': 8, 'purpose': 5, 'role': 5, 'goal': 4, 'facts': 8}
MAX_OPENING_WORDS = 60

Sections = dict[str, str]


def section_name(heading: str, role: str) -> str | None:
  """The section that a heading means, None for a strange one."""
  last = SECTIONS[role][-1]
  for name, pattern in _NAMES:
    if pattern.search(heading.lower()):
      name = last if name == 'purpose' else name
      return name if name in SECTIONS[role] else None
  return None


def parse(text: str, role: str) -> tuple[Sections, tuple[str, ...]]:
  """Read a sheet: (sections by name, strange things such as text under no heading).

  Strange text is in no section; whoever writes the sheet again would lose it.
  """
  text = _FENCE.sub('', text.replace('\r\n', '\n'))

  def set_apart(match: re.Match) -> str:
    heading = match.group('a') or match.group('b') or match.group('c')
    if section_name(heading, role) is None:
      return match.group()
    return f'### {heading}\n{match.group("rest")}'

  text = _HEADING_INLINE.sub(set_apart, text)
  sections: Sections = {}
  strange: list[str] = []
  name, begin = None, 0
  marks = [*_HEADING.finditer(text), None]
  for mark in marks:
    body = text[begin : mark.start() if mark else len(text)].strip()
    if name is not None:
      sections[name] = f'{sections[name]}\n{body}'.strip() if name in sections else body
    elif body:
      strange.append(f'text under no heading of the sheet: {body[:60]!r}')
    if mark:
      heading = mark.group('hash') or mark.group('bold') or mark.group('bracket')
      name, begin = section_name(heading, role), mark.end()
      if name is None:
        strange.append(f'a heading that the sheet does not have: {heading.strip()[:60]!r}')
      elif name in sections:
        strange.append(f'the section {name!r} stands twice')
  return {name: tidy(name, body) for name, body in sections.items()}, tuple(strange)


def from_object(value: Any, role: str) -> Sections:
  """Sections from what a model answered: an object of sections, or a whole sheet as text."""
  if isinstance(value, str):
    return parse(value, role)[0]
  sections: Sections = {}
  if isinstance(value, Mapping):
    for key, body in value.items():
      name = key if key in SECTIONS[role] else section_name(str(key).replace('_', ' '), role)
      if name is None or body in (None, '', []):
        continue
      if isinstance(body, (list, tuple)):
        body = '\n'.join(f'- {item}' for item in body if str(item).strip())
      elif isinstance(body, Mapping):
        body = '\n'.join(f'- {item}' for item in body.values() if str(item).strip())
      sections[name] = tidy(name, str(body))
  return sections


def tidy(name: str, body: str) -> str:
  """Mend by rule what no model is needed for: fences, heading marks, bullets, blank lines."""
  lines = [line.strip() for line in _FENCE.sub('', body).split('\n')]
  lines = [re.sub(r'^#{1,6}[ \t]*', '', line) for line in lines if line]
  if name == 'facts':
    lines = [f'- {_BULLET.sub("", line)}' for line in lines if _BULLET.sub('', line)]
  return '\n'.join(lines)


def render(sections: Mapping[str, str], role: str, language: str) -> str:
  """Write a sheet: the sections that are there, in their order, under our headings."""
  return '\n\n'.join(
    f'### {HEADINGS[language][name]}\n{sections[name]}'
    for name in SECTIONS[role]
    if sections.get(name)
  )


def facts(sections: Mapping[str, str]) -> list[str]:
  return [line.removeprefix('- ') for line in sections.get('facts', '').split('\n') if line]


def num_words(text: str) -> int:
  """Words, a Chinese character counting as half a word."""
  return len(_LATIN.findall(text)) + (len(_CJK.findall(text)) + 1) // 2


def language_of(text: str) -> str:
  """'zh' or 'en', by the same rule as `Scenario.language`."""
  return 'zh' if len(_CJK.findall(text)) > len(re.findall(r'[A-Za-z]+', text)) else 'en'


def faults(sections: Mapping[str, str], role: str, language: str) -> list[str]:
  """What is wrong with a sheet, one line each; empty if nothing is.

  The lines are shown to the model that mends the sheet, so they name section and rule.
  """
  found = []
  for name in SECTIONS[role]:
    where = f"{role}'s section `{name}`"
    body = sections.get(name, '')
    if not body.strip():
      found.append(f'{where} is missing or empty')
      continue
    if num_words(body) < _MIN_WORDS[name]:
      found.append(f'{where} is too thin: {body!r}')
    for what, pattern in (('an unfilled placeholder', _PLACEHOLDER), ('talk about the machinery', _LEAK)):
      match = pattern.search(body)
      if match:
        found.append(f'{where} holds {what}: {match.group()!r}')
    if num_words(body) >= 8 and language_of(body) != language:
      found.append(f'{where} is not written in {"Chinese" if language == "zh" else "English"}')
  if sections.get('facts') and len(facts(sections)) < MIN_FACTS:
    found.append(f"{role}'s section `facts` must hold at least {MIN_FACTS} facts, one a line")
  return found


def tidy_opening(text: str) -> str:
  """One spoken line: no stage direction in front, no quotation marks around, no line breaks."""
  line = ' '.join(text.split())
  line = _STAGE_DIRECTION.sub('', line)
  # Marks inside the line belong to it: "'Who is this.' With a full stop."
  if len(line) > 2 and _QUOTES.get(line[0]) == line[-1] and line[0] not in line[1:-1] and line[-1] not in line[1:-1]:
    line = line[1:-1].strip()
  return line


def opening_faults(line: str, language: str) -> list[str]:
  found = []
  if not line:
    found.append('`opening_line` is missing or empty')
  elif num_words(line) > MAX_OPENING_WORDS:
    found.append(f'`opening_line` is too long: {num_words(line)} words, at most {MAX_OPENING_WORDS}')
  for pattern in (_PLACEHOLDER, _LEAK):
    if pattern.search(line):
      found.append(f'`opening_line` holds {pattern.search(line).group()!r}, which nobody says')
  if num_words(line) >= 4 and language_of(line) != language:
    found.append(f'`opening_line` is not written in {"Chinese" if language == "zh" else "English"}')
  return found
