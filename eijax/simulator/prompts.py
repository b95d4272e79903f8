"""The simulator's prompt: episode and reply -> messages, and exactly back again.

A hosted LLM and the embedded simulator read the same two messages. Everything
either of them uses stands in the text: persona, scene, mood, round, the
scenario's appraisal as plain lists, the labelled history with the simulator's
own private reflections, and the other side's last line. `parse` is the exact
inverse of `render_request`.

Whatever comes from outside the template is escaped so that it cannot open or
close a tag: `<` becomes `&lt;`, and an `&` that would read as an escape becomes
`&amp;`. Control tokens such as `<|im_start|>` are broken by the same rule. What a
language model might take for `<`, and what a person would not see at all, becomes
a visible `&#NUMBER;`.

Protocol: arXiv 2606.15532, section 2. The wording is ours.
"""

import dataclasses
import functools
import re
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2

from eijax.episodes.state import Episode, Reply
from eijax.scenarios.record import SCENES, Appraisal, Cue
from eijax.simulator import mood

LANGUAGES = ('en', 'zh')
# Talks of which something is remembered between requests, those asked for last: more than are under way at a
# time. A talk beyond is read anew, about 10 ms of work, and the answer is the same. A scenario takes about 100 KiB.
TALKS_KEPT = 256

# Section tag -> heading per language, in the order of the prompt.
SECTIONS = {
  'facts': ('### What happened', '### 发生了什么'),
  'needs': ('### What you want and do not say', '### 你想要而没有说出口的'),
  'soothes': ('### What softens you', '### 什么让你软下来'),
  'inflames': ('### What hardens you', '### 什么让你更硬'),
  'boundary': ('### What you demand and must not simply be given', '### 你索要而对方不该给的'),
  'holds': ('### How it sounds when they keep it', '### 对方守住时的说法'),
  'yields': ('### How it sounds when they give it away', '### 对方让步时的说法'),
  'way_out': ('### The way out that leaves you your face', '### 给你台阶的出路'),
  'act': ('### What they did', '### 对方做了什么'),
  'effect': ('### What it cost you', '### 让你付出了什么'),
  'amends': ('### What would count as amends', '### 什么才算弥补'),
}
_LIST_SECTIONS = ('facts', 'needs', 'soothes', 'inflames')


class PromptError(ValueError):
  """Messages that are not a simulator request of this project."""


class Said(NamedTuple):
  """One earlier line. speaker: 'you' (the simulated user), 'they', or 'private'.

  round is 0 for the opening line. A 'private' entry is the user's own
  reflection of that round, as JSON text or prose.
  """

  speaker: str
  round: int
  text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedRequest:
  """All that one request to the simulator says. Levels are 0..100, rounds from 1."""

  language: str
  scene: str
  persona: str
  anger: int
  trust: int
  round: int
  max_rounds: int
  appraisal: Appraisal | None
  history: tuple[Said, ...]
  last_line: str


def render(episode: Episode, reply: Reply) -> list[dict[str, str]]:
  """Return the [system, user] messages that ask for the user's reaction to `reply`."""
  return render_request(request_of(episode, reply))


def request_of(episode: Episode, reply: Reply) -> ParsedRequest:
  """Collect what the simulator may see: visible replies only, never a policy's thoughts."""
  scenario = episode.scenario
  history = []
  if scenario.opening_line is not None:
    history.append(Said('you', 0, scenario.opening_line))
  for number, turn in enumerate(episode.turns, start=1):
    history.append(Said('they', number, turn.reply.visible))
    if turn.reflection:
      history.append(Said('private', number, turn.reflection_text))
    history.append(Said('you', number, turn.simulator))
  return ParsedRequest(
    language=scenario.language,
    scene=scenario.scene,
    persona=scenario.aggressor_prompt,
    anger=episode.state.anger,
    trust=episode.state.trust,
    round=len(episode.turns) + 1,
    max_rounds=episode.max_rounds,
    appraisal=scenario.appraisal,
    history=tuple(history),
    last_line=reply.visible,
  )


def render_request(request: ParsedRequest) -> list[dict[str, str]]:
  """Return the [system, user] messages of a request."""
  system = _template(f'system_{request.language}.j2').module.prompt(
    persona=_escape(request.persona),
    scene=request.scene,
    anger=request.anger,
    trust=request.trust,
    round=request.round,
    max_rounds=request.max_rounds,
    meaning=mood.MEANING[request.language][request.scene],
    anger_bands=mood.band_lines(request.language, request.scene, 'anger', request.anger),
    trust_bands=mood.band_lines(request.language, request.scene, 'trust', request.trust),
    sections=_sections(request.appraisal, request.language),
  )
  user = _template(f'user_{request.language}.j2').module.prompt(
    history=[
      f'<{said.speaker} round="{said.round}">{_escape(said.text)}</{said.speaker}>'
      for said in request.history
    ],
    last_line=_escape(request.last_line),
  )
  return [{'role': 'system', 'content': system}, {'role': 'user', 'content': user}]


def parse(messages: Sequence[Mapping[str, object]]) -> ParsedRequest:
  """Read a request back from its messages.

  Later messages (a correction after an unreadable answer) are ignored.

  Raises:
    PromptError: the messages were not made by `render`.
  """
  system = _first_content(messages, 'system')
  user = _first_content(messages, 'user')
  persona, state, appraisal = _parse_system(system)
  talk = _between(user, '<talk>\n', '</talk>')
  now = _between(user, '<they_now>\n', '\n</they_now>')
  if talk is None or now is None:
    raise PromptError(
      'the user message has no <talk> or <they_now> section; send the messages of eijax.simulator.prompts'
    )
  history = tuple(
    Said(speaker, int(number), _unescape(text))
    for speaker, number, text in _LINE.findall(talk)
  )
  return ParsedRequest(
    language=state['language'],
    scene=state['scene'],
    persona=persona,
    anger=int(state['anger']),
    trust=int(state['trust']),
    round=int(state['round']),
    max_rounds=int(state['rounds']),
    appraisal=appraisal,
    history=history,
    last_line=_unescape(now),
  )


# One line of the talk, up to the first tag that closes it.
_LINE = re.compile(r'<(you|they|private) round="(\d+)">([^<]*(?:<(?!/\1>)[^<]*)*)</\1>')


def _between(text: str, start: str, end: str) -> str | None:
  """What stands between the first `start` and the next `end`; None where either is missing."""
  _, found, rest = text.partition(start)
  inside, closed, _ = rest.partition(end)
  return inside if found and closed else None


_TEMPLATE_LOCK = threading.Lock()


def _template(name: str) -> jinja2.Template:
  # The first requests of a run come together: a cache alone would have each of them compile it.
  with _TEMPLATE_LOCK:
    return _compiled_template(name)


@functools.cache
def _compiled_template(name: str) -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('eijax.simulator', 'templates'),
    trim_blocks=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=False,
    autoescape=False,
  )
  return environment.get_template(name)


# Look-alikes of `<`, zero-width and bidirectional marks, and the letters of the tag block, in
# which whole orders can be hidden. The joiner of composed emoji is left alone between them.
_HIDDEN = re.compile(
  '[\uff1c\ufe64\u2039\u276e\u27e8\u1438\u00ad\u200b\u200c\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]'
  '|(?<![\u2600-\u27bf\ufe0f\U0001f000-\U0001faff])\u200d'
)
_LIKE_ESCAPE = re.compile(r'&(?=(?:amp|lt|#[0-9]{2,6});)')
_ESCAPED = re.compile(r'&(?:(amp|lt)|#([0-9]{2,6}));')


@functools.lru_cache(maxsize=16 * TALKS_KEPT)  # Lines of both sides.
def _escape(text: str) -> str:
  if '&' in text:
    text = _LIKE_ESCAPE.sub('&amp;', text)
  text = text.replace('<', '&lt;')
  if text.isascii():
    return text
  return _HIDDEN.sub(lambda match: f'&#{ord(match.group())};', text)


def _unescape(text: str) -> str:
  return _ESCAPED.sub(_unescaped, text) if '&' in text else text


def _unescaped(match: re.Match) -> str:
  if match.group(1):
    return '&' if match.group(1) == 'amp' else '<'
  return chr(int(match.group(2)))


_ITEM_ESCAPES = str.maketrans({'\\': '\\\\', '/': '\\/', '\n': '\\n'})
_ITEM_ESCAPED = re.compile(r'\\[\\/n]')
_ITEM_UNESCAPES = {'\\\\': '\\', '\\/': '/', '\\n': '\n'}


def _escape_item(text: str) -> str:
  """One line, with the cue separator and line breaks escaped by a backslash."""
  return _escape(text.translate(_ITEM_ESCAPES))


def _unescape_item(text: str) -> str:
  text = _unescape(text)
  return _ITEM_ESCAPED.sub(lambda match: _ITEM_UNESCAPES[match.group()], text) if '\\' in text else text


@functools.lru_cache(maxsize=TALKS_KEPT)
def _sections(appraisal: Appraisal | None, language: str) -> str:
  """Return all parts of the appraisal that are not empty, under their headings; '' for none. The same for a whole talk."""
  if appraisal is None:
    return ''
  sections = []
  for name, headings in SECTIONS.items():
    value = getattr(appraisal, name)
    if value is None:
      continue
    items = value if name in _LIST_SECTIONS else (value,)
    shown = [{'text': _escape_item(item.text), 'cues': ' / '.join(map(_escape_item, item.cues))} for item in items]
    sections.append((name, headings[LANGUAGES.index(language)], shown))
  return _template('sections.j2').render(sections=sections)


@functools.lru_cache(maxsize=TALKS_KEPT)
def _parse_static(head: str, lists: str) -> tuple[str, Appraisal | None]:
  """Parse persona and appraisal, the parts that stay the same over a talk."""
  persona = re.search(r'<persona>\n(.*)\n</persona>', head, re.S)
  if not persona:
    raise PromptError(
      'the system message has no <persona> section; send the messages of eijax.simulator.prompts'
    )
  parts = {}
  for name, body in re.findall(r'<(\w+)>\n(.*?)</\1>', lists, re.S):
    if name not in SECTIONS:
      continue
    items = tuple(
      Cue(
        text=_unescape_item(text),
        cues=tuple(map(_unescape_item, cues.split(' / '))) if cues else (),
      )
      for text, cues in re.findall(r'^- (.*)\n  = (.*)$', body, re.M)
    )
    parts[name] = items if name in _LIST_SECTIONS else items[0]
  if not parts:
    return _unescape(persona.group(1)), None
  for name in _LIST_SECTIONS:
    parts.setdefault(name, ())
  return _unescape(persona.group(1)), Appraisal(**parts)


_STATE = re.compile(r'<state [^>]*/>')
_FIELD = re.compile(r'(\w+)="([^"]*)"')


def _parse_system(system: str) -> tuple[str, dict[str, str], Appraisal | None]:
  tag = _STATE.search(system)
  if not tag:
    raise PromptError(
      'the system message has no <state .../> line; send the messages of eijax.simulator.prompts'
    )
  state = dict(_FIELD.findall(tag.group()))
  for name in ('anger', 'trust', 'round', 'rounds'):
    if not state.get(name, '').isdecimal():
      raise PromptError(f'<state {name}={state.get(name)!r}> must be a whole number of at least 0')
  if state.get('scene') not in SCENES:
    raise PromptError(f'<state scene={state.get("scene")!r}> must be one of {", ".join(SCENES)}')
  if state.get('language') not in LANGUAGES:
    raise PromptError(
      f'<state language={state.get("language")!r}> must be one of {", ".join(LANGUAGES)}'
    )
  start = system.find('\n## 3. ', tag.end())
  lists = system[start : system.find('\n## 4. ', start)] if start >= 0 else ''
  persona, appraisal = _parse_static(system[: tag.start()], lists)
  return persona, state, appraisal


def _first_content(messages: Sequence[Mapping[str, object]], role: str) -> str:
  for message in messages:
    if message.get('role') != role:
      continue
    content = message.get('content')
    if isinstance(content, list):  # The multi-part shape that some clients send.
      content = ''.join(part.get('text', '') for part in content if isinstance(part, Mapping))
    if isinstance(content, str):
      return content
  raise PromptError(f'the request has no {role} message with text')
