"""Themes, situations and options in two languages, and the seeded draw of combinations.

Pool sizes follow EIBench, arXiv 2606.15532: themes support 6, defense 7, repair 5, charm 5
with 6 to 8 situations each; 7 relationships, 11 places, 8 intensities (Charm has its own 8),
10 personalities. The entries are ours.
"""

import dataclasses
import functools
import hashlib
import importlib.resources
import random
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from eijax.seeds import derive_seed

LANGUAGES = ('en', 'zh')
PARTS = ('theme', 'situation', 'relationship', 'setting', 'intensity', 'personality')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
  """One entry of a pool. key: the same in every language."""

  key: str
  text: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Combination:
  """One seed: a situation under its theme, and one option of every other pool."""

  scene: str
  theme: Option
  situation: Option
  relationship: Option
  setting: Option
  intensity: Option
  personality: Option

  @property
  def key(self) -> str:
    return '/'.join((self.scene, *(getattr(self, part).key for part in PARTS)))

  @property
  def digest(self) -> str:
    """Ten hexadecimal digits that stand for the key."""
    return hashlib.sha256(self.key.encode()).hexdigest()[:10]

  def texts(self, language: str) -> dict[str, str]:
    return {part: getattr(self, part).text[language] for part in PARTS}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pools:
  """All options of one scene. situations: (theme, situation) pairs."""

  scene: str
  version: int
  situations: tuple[tuple[Option, Option], ...]
  relationships: tuple[Option, ...]
  places: tuple[Option, ...]
  intensities: tuple[Option, ...]
  personalities: tuple[Option, ...]

  @property
  def num_combinations(self) -> int:
    sizes = (self.situations, self.relationships, self.places, self.intensities, self.personalities)
    product = 1
    for options in sizes:
      product *= len(options)
    return product


def _read(name: str) -> Any:
  path = importlib.resources.files('eijax.generation') / 'pools' / f'{name}.yaml'
  return yaml.safe_load(path.read_text(encoding='utf-8'))


def _options(lines: str) -> tuple[Option, ...]:
  found = []
  for line in lines.splitlines():
    key, *texts = (part.strip() for part in line.split(' | '))
    found.append(Option(key=key, text=dict(zip(LANGUAGES, texts, strict=True))))
  return tuple(found)


@functools.cache
def load_pools(scene: str) -> Pools:
  """The pools of one scene, from the files beside this module."""
  shared = _read('shared')
  situations = []
  for key, theme in _read(scene).items():
    under = Option(key=key, text={language: theme[language] for language in LANGUAGES})
    situations += [(under, situation) for situation in _options(theme['situations'])]
  return Pools(
    scene=scene,
    version=shared['version'],
    situations=tuple(situations),
    relationships=_options(shared['relationships']),
    places=_options(shared['places']),
    intensities=_options(shared['charm_intensities' if scene == 'charm' else 'intensities']),
    personalities=_options(shared['personalities']),
  )


def combinations(scene: str, seed: int) -> Iterator[Combination]:
  """Yield every combination of a scene once, in an order that the seed fixes.

  The situations come in rounds: none comes a second time before all have come once, so that
  a small set is spread over all themes. Longer draws begin with the shorter ones.
  """
  pools = load_pools(scene)
  rng = random.Random(derive_seed('combinations', scene, seed))
  per_situation = pools.num_combinations // len(pools.situations)
  used: list[set[tuple[int, ...]]] = [set() for _ in pools.situations]
  rest = (pools.relationships, pools.places, pools.intensities, pools.personalities)
  for _ in range(per_situation):
    order = list(range(len(pools.situations)))
    rng.shuffle(order)
    for index in order:
      choice = tuple(rng.randrange(len(options)) for options in rest)
      while choice in used[index]:
        choice = tuple(rng.randrange(len(options)) for options in rest)
      used[index].add(choice)
      relationship, setting, intensity, personality = (
        options[number] for options, number in zip(rest, choice)
      )
      theme, situation = pools.situations[index]
      yield Combination(
        scene=scene, theme=theme, situation=situation, relationship=relationship,
        setting=setting, intensity=intensity, personality=personality,
      )  # fmt: skip


def record_combination(record: Mapping[str, Any]) -> tuple[str, ...] | None:
  """The combination that a record says it was made of, for comparison; None if it does not say.

  Args:
    record: a record, or the `extra` keys of a Scenario with its scene as `scene_tag`.
  """
  generation = record.get('generation')
  if isinstance(generation, Mapping) and isinstance(generation.get('combination'), str):
    return (generation['combination'],)
  texts = tuple(record.get(part) for part in PARTS)
  if not all(isinstance(text, str) for text in texts):
    return None
  return (str(record.get('scene_tag', '')), *texts)


def comparison_keys(combination: Combination) -> set[tuple[str, ...]]:
  """Every form in which `record_combination` may give this combination back."""
  return {(combination.key,)} | {
    (combination.scene, *combination.texts(language).values()) for language in LANGUAGES
  }
