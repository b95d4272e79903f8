"""Small situation cards for tests, as the YAML that people write."""

import pathlib

import yaml

SPLITS_AND_SCENES = [(split, scene) for split in ('train', 'test') for scene in ('support', 'defense', 'repair', 'charm')]
_SINGLES = {'defense': ('boundary', 'holds', 'yields', 'way_out'), 'repair': ('act', 'effect', 'amends')}


def make_card(name='lost-dog', scene='support', num_variants=2, num_angles=2, **changes) -> dict:
  """A valid card as a mapping; `changes` replace top-level keys, None removes one."""
  card = {
    'card': name,
    'scene': scene,
    'theme': 'loss',
    'situation': 'Somebody lost an animal.\n',
    'flags': ['death'],
    'tempers': [
      {'name': f'{name} temper {n}', 'style': f'Style {n} of {name}.', 'logic': f'Logic {n}.', 'purpose': f'Purpose {n}.'}
      for n in range(2)
    ],
    'needs': 'to be heard | hear you / listening now\n',
    'soothes': 'asking its name | her name / called what\n',
    'inflames': 'a new one | another dog / new puppy\n',
    'success': 'Asks before advising\n',
    'must_avoid': 'Haste\n',
    'anchors': '70 30 -> 40 75 | 90 5',
    'variants': [_variant(name, scene, n, num_angles) for n in range(num_variants)],
  }
  card |= changes
  return {key: value for key, value in card.items() if value is not None}


def _variant(name: str, scene: str, number: int, num_angles: int) -> dict:
  facts = '\n'.join(f'Fact {n} of {name} {number} at {{place}}. | the fact {n} | fact{n}x / {{other}} fact{n}' for n in range(10))
  variant = {
    'key': f'v{number}',
    'relationship': f'neighbours {number}',
    'setting': f'a gate in {{place}}, {number}',
    'background': f'You are {{user_full}}, {40 + number}, of {name}. {{user}} is what {{other}} calls you.\n',
    'facts': facts + '\n',
    'needs': 'that it mattered | it mattered\n',
    'soothes': 'the lead | lead hook / old lead\n',
    'inflames': 'only a dog | only dog / just animal\n',
    'sheet': {
      'background': 'You are {other}, next door to {user}.\n',
      'stance': 'You can listen.\n',
      'facts': '\n'.join(f'Bullet {n} at the gate.' for n in range(6)) + '\n',
      'goal': 'Stay with {user}.\n',
    },
    'criterion': 'Names the lead\n',
    'avoid': 'Names a shelter\n',
    'one_liner': 'Stay with {user} at the gate.\n',
    'reason': '{user} goes in alone.\n',
    'angles': [_angle(name, scene, number, depth) for depth in range(num_angles)],
  }
  for single in _SINGLES.get(scene, ()):
    variant[single] = f'the {single} | {single} cue / other {single}\n'
  return variant


def _angle(name: str, scene: str, number: int, depth: int) -> dict:
  angle = {
    'cast': {'user': f'Ana{number}{depth} Ruiz', 'other': f'Bo{number}{depth}', 'place': f'Town{number}{depth}'},
    'title': f'Title {name} {number} {depth}',
    'stance': f'You stand at the gate, {depth}.\n',
    'tried': f'You tried a whistle, {depth}. | the whistle | whistle\n',
    'stake': f'You have the lead, {depth}. | the lead | lead{depth}\n',
  }
  if scene != 'charm':
    angle['opening'] = f'{name} {number} {depth} is gone, {{other}}.\n'
  if depth:
    angle['anchors'] = '65 35 -> 40 75 | 85 5'
  return angle


def write_card(folder: pathlib.Path, card: dict, split='train') -> pathlib.Path:
  path = folder / split / card['scene'] / f'{card["card"]}.yaml'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(yaml.safe_dump(card, allow_unicode=True, sort_keys=False), encoding='utf-8')
  return path


def write_cards(folder: pathlib.Path, count=3) -> pathlib.Path:
  """Two cards a split and scene, and set.yaml that asks for `count` scenarios of each."""
  for split, scene in SPLITS_AND_SCENES:
    for letter in 'ab':
      write_card(folder, make_card(f'{split}-{scene}-{letter}', scene), split)
  write_counts(folder, count)
  return folder


def write_counts(folder: pathlib.Path, count: int) -> None:
  counts = {split: {scene: count for _, scene in SPLITS_AND_SCENES} for split, _ in SPLITS_AND_SCENES}
  folder.mkdir(parents=True, exist_ok=True)
  (folder / 'set.yaml').write_text(yaml.safe_dump({'counts': counts}), encoding='utf-8')
