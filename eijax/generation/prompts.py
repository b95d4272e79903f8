"""The messages of every stage, from templates in English and Chinese."""

import functools
import importlib.resources
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import yaml

from eijax.generation import sheets
from eijax.generation.asking import Messages
from eijax.scenarios.record import Scenario

# Part of a run's settings: raise it when a template changes what comes out.
VERSION = 1
STAGES = ('expand', 'goal', 'worst', 'reclean', 'appraisal')
NUM_EXAMPLES = 2
_BREAK = '\n---user---\n'


@functools.cache
def _environment() -> jinja2.Environment:
  return jinja2.Environment(
    loader=jinja2.PackageLoader('eijax.generation', 'templates'),
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
    autoescape=False,
  )


def render(stage: str, language: str, **values: Any) -> Messages:
  """Return the [system, user] messages of a stage."""
  text = _environment().get_template(f'{stage}_{language}.j2').render(**values)
  system, user = text.split(_BREAK, 1)
  return [
    {'role': 'system', 'content': system.strip()},
    {'role': 'user', 'content': user.strip()},
  ]


def as_json(title: str, user: Mapping[str, str], partner: Mapping[str, str], opening: str | None) -> str:
  """Both sheets in the shape in which the model is to answer."""
  shown: dict[str, Any] = {'title': title} if title else {}
  for role, sections in (('user', user), ('partner', partner)):
    shown[role] = {
      name: sheets.facts(sections) if name == 'facts' else sections[name]
      for name in sheets.SECTIONS[role]
      if sections.get(name)
    }
  if opening:
    shown['opening_line'] = opening
  return json.dumps(shown, ensure_ascii=False, indent=1)


@functools.cache
def _own_examples(language: str) -> dict[str, list[dict[str, Any]]]:
  path = importlib.resources.files('eijax.generation') / 'templates' / f'examples_{language}.yaml'
  return yaml.safe_load(path.read_text(encoding='utf-8'))


def _own(scene: str, language: str) -> list[str]:
  return [
    as_json(
      item['title'], sheets.from_object(item['user'], 'user'), sheets.from_object(item['partner'], 'partner'),
      item.get('opening_line'),
    )
    for item in _own_examples(language)[scene]
  ]  # fmt: skip


def _of_scenario(scenario: Scenario) -> str | None:
  user, strange_user = sheets.parse(scenario.aggressor_prompt, 'user')
  partner, strange_partner = sheets.parse(scenario.defender_prompt, 'partner')
  if strange_user or strange_partner or len(user) < 6 or len(partner) < 4:
    return None
  return as_json(scenario.title, user, partner, scenario.opening_line)


class Examples:
  """Finished situations to show: of a set where it has enough of a scene and language, else our own.

  Args:
    scenarios: never held-out ones.
  """

  def __init__(self, scenarios: Sequence[Scenario], language: str):
    self._language = language
    self._by_scene: dict[str, list[Scenario]] = {}
    for scenario in scenarios:
      if scenario.language == language:
        self._by_scene.setdefault(scenario.scene, []).append(scenario)

  def choose(self, scene: str, seed: int) -> list[str]:
    """Two examples of the scene, as JSON texts; the same for the same seed."""
    rng = random.Random(seed)
    candidates = self._by_scene.get(scene, [])
    chosen: list[str] = []
    for scenario in rng.sample(candidates, min(len(candidates), 4 * NUM_EXAMPLES)):
      text = _of_scenario(scenario)
      if text is not None and len(chosen) < NUM_EXAMPLES:
        chosen.append(text)
    return chosen if len(chosen) == NUM_EXAMPLES else _own(scene, self._language)
