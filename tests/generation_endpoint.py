"""A scripted model that writes scenarios in both languages, and can go wrong in each stage."""

import collections
import json
import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags
from fake_endpoint import FakeEndpoint, chat_body

from eijax.generation import clean, generate, prompts
from eijax.scenarios.cards import SINGLES

_SYLLABLES = 'ba de ki lo mu na pe ri so tu va we xi yo zu fa ge hi ju ka'.split()
_HAN = '山水木石风云桥灯船米茶纸门窗雨雪河田瓦碗绳针线鞋帽书信钟铃锁井墙树叶花果糖盐油火炉席枕布灰沙泥'
KEY = 'sk-generation-key'


def stage_of(request: dict) -> tuple[str, str]:
  """(stage, language) of a request, from its system message."""
  return _systems()[request['messages'][0]['content']]


def _systems() -> dict[str, tuple[str, str]]:
  if not _SYSTEMS:
    environment = prompts._environment()
    for stage in prompts.STAGES:
      for language in ('en', 'zh'):
        source = environment.loader.get_source(environment, f'{stage}_{language}.j2')[0]
        system = source.split('\n---user---\n')[0].split('%}\n', 1)[1].strip()
        _SYSTEMS[system] = stage, language
  return _SYSTEMS


_SYSTEMS: dict[str, tuple[str, str]] = {}


def words(rng: random.Random, num: int, language: str) -> str:
  """Text that no other call gives: `num` words that mean nothing."""
  if language == 'zh':
    return '你' + ''.join(rng.choice(_HAN) for _ in range(2 * num)) + '。'
  return 'You ' + ' '.join(''.join(rng.sample(_SYLLABLES, 3)) for _ in range(num)) + '.'


def sheets(rng: random.Random, language: str) -> tuple[dict, dict]:
  user = {name: words(rng, 24, language) for name in ('background', 'role', 'style', 'logic', 'purpose')}
  user['facts'] = [words(rng, 7, language) for _ in range(7)]
  partner = {name: words(rng, 14, language) for name in ('background', 'role', 'goal')}
  partner['facts'] = [words(rng, 5, language) for _ in range(5)]
  return user, partner


def scene_of(text: str) -> str:
  for scene, names in {
    'support': ('Support: the user', '支持：用户'), 'defense': ('Defense: the user', '防守：用户'),
    'repair': ('Repair: the partner', '修复：对方'), 'charm': ('Charm: two', '亲近：两个'),
  }.items():  # fmt: skip
    if any(name in text for name in names):
      return scene
  raise AssertionError('the prompt names no scene')


def sound_answer(request: dict) -> dict[str, Any]:
  """What a good model would answer, different for every prompt."""
  stage, language = stage_of(request)
  prompt = request['messages'][1]['content']
  scene = scene_of(prompt)
  rng = random.Random(f'{prompt} {request["seed"]}')
  if stage in ('expand', 'reclean'):
    user, partner = sheets(rng, language)
    answer = {'title': words(rng, 3, language).strip('.。'), 'content_flags': ['illness'], 'user': user, 'partner': partner}
    if scene != 'charm':
      answer['opening_line'] = words(rng, 8, language)
    return answer
  if stage == 'goal':
    return {
      'goal_one_liner': words(rng, 8, language), 'success_criteria': [words(rng, 5, language) for _ in range(3)],
      'must_avoid': [words(rng, 5, language) for _ in range(3)],
      'initial_anger': 60, 'initial_trust': 30, 'target_anger': 30, 'target_trust': 60,
    }  # fmt: skip
  if stage == 'worst':
    return {'worst_anger_min': 85, 'worst_trust_min': 5, 'reason': words(rng, 8, language)}
  cue = lambda: {'text': words(rng, 3, language), 'cues': [words(rng, 2, language) for _ in range(3)]}
  lists = {name: [cue() for _ in range(3)] for name in ('facts', 'needs', 'soothes', 'inflames')}
  return {**lists, **{name: cue() for name in SINGLES[scene]}}


class ScriptedModel(FakeEndpoint):
  """Answers every stage soundly, but for the answers that `spoil` changes.

  Args:
    spoil: from (stage, number of this request within its stage, sound answer) to an answer: an
      object, a text, or a whole body made by `chat_body`; None leaves it sound.
  """

  def __init__(self, spoil: Callable[[str, int, dict], Any] = lambda stage, number, answer: None, **settings: Any):
    self._spoil = spoil
    self._numbers: collections.Counter[str] = collections.Counter()
    self._count_lock = threading.Lock()
    super().__init__(answer=self._reply, **settings)

  def _reply(self, request: dict) -> dict:
    stage, _ = stage_of(request)
    with self._count_lock:
      number = self._numbers[stage]
      self._numbers[stage] += 1
    answer = sound_answer(request)
    spoilt = self._spoil(stage, number, answer)
    answer = answer if spoilt is None else spoilt
    if isinstance(answer, dict) and 'choices' in answer:
      return answer
    text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
    body = chat_body(text)
    body['usage'] = {'prompt_tokens': 1000, 'completion_tokens': 200}
    return body

  def stages(self, requests: Sequence[dict] | None = None) -> collections.Counter:
    return collections.Counter(stage_of(request)[0] for request in (self.requests if requests is None else requests))


def _run(module, *arguments: str) -> None:
  values = flags.FlagValues()
  module.define_flags(values)
  module.run(values, values(['command', *arguments])[1:])


def run_generate(endpoint: FakeEndpoint | None, out, *arguments: str) -> None:
  """The command without its process; small waits."""
  url = [f'--model_url={endpoint.url}', '--model=m'] if endpoint else []
  _run(generate, f'--out={out}', '--against=', *url, *arguments)


def run_clean(endpoint: FakeEndpoint | None, folder, out, *arguments: str) -> None:
  url = [f'--model_url={endpoint.url}', '--model=m'] if endpoint else []
  _run(clean, str(folder), f'--out={out}', *url, *arguments)


def read_lines(path) -> list[dict]:
  return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
