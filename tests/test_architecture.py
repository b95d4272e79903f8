"""Rooms and import directions: who may know of whom. Read from the source, then tried."""

import ast
import functools
import graphlib
import pathlib
import subprocess
import sys

import pytest

from eijax.bench.__main__ import SUBCOMMANDS as BENCHES
from eijax.scenarios.__main__ import SUBCOMMANDS

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'eijax'
MAX_LINES = 450
NUMERIC_LIBRARIES = frozenset({'jax', 'jaxlib', 'flax', 'optax', 'orbax'})

# A room imports rooms of its own level or below, never above.
LEVELS = (
    ('errors', 'jsonl', 'seeds', 'settings', 'command', 'collector', 'http_loop', 'http_server'),
    ('scenarios', 'chat', 'policy'),
    ('episodes', 'text', 'learning'),
    ('rewards', 'simulator', 'sampling', 'checkpoints', 'hf', 'conversations'),
    ('scripted', 'rollouts', 'evaluation'),
    ('report', 'warmup'),
    ('comparison', 'curation'),
    ('generation', 'datasets', 'leaderboard'),
    ('config', 'presets'),
    ('training', 'serving'),
    ('flags', 'train', 'convert', 'compare', 'evaluate', 'serve', 'plan', 'sft', 'bench'),
)
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
# What a talk is made of runs without an accelerator, jax or a local policy.
CONVERSATION = frozenset(
    'scenarios chat text episodes rewards simulator scripted rollouts evaluation report comparison leaderboard curation generation datasets conversations'.split()
)
CONVERSATION_MODULES = frozenset({'eijax.warmup.corpus', 'eijax.warmup.exercises'})
# What learns sees arrays, never text.
NUMERIC = frozenset('policy sampling learning checkpoints hf'.split())
ENTRY_POINTS = frozenset({
    'eijax.command', 'eijax.train', 'eijax.flags', 'eijax.convert', 'eijax.compare', 'eijax.evaluate.flags', 'eijax.serve', 'eijax.sft.flags',
    'eijax.bench.shapes',
}) | {
    module for module, _ in (*SUBCOMMANDS.values(), *BENCHES.values())
}


@functools.cache
def _modules() -> dict[str, pathlib.Path]:
  """Module name -> file. A package is named without `__init__`."""
  modules = {}
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = path.relative_to(ROOT).with_suffix('').parts
    modules['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
  return modules


@functools.cache
def _tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(encoding='utf-8'), filename=str(path))


@functools.cache
def _imports(module: str) -> frozenset[str]:
  """Every module that this one names in an import, at the top or inside a function."""
  found = set()
  for node in ast.walk(_tree(_modules()[module])):
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'{module}, line {node.lineno}: relative import; name the whole path'
      for alias in node.names:
        whole = f'{node.module}.{alias.name}'
        found.add(whole if whole in _modules() else node.module)
  return frozenset(found)


def _room(module: str) -> str | None:
  """The first name below eijax; None for the package itself and for other libraries."""
  parts = module.split('.')
  return parts[1] if parts[0] == 'eijax' and len(parts) > 1 else None


def _is_conversation(module: str) -> bool:
  return _room(module) in CONVERSATION or module in CONVERSATION_MODULES


def _edges() -> list[tuple[str, str]]:
  return [(module, name) for module in _modules() for name in sorted(_imports(module))]


def test_every_room_has_a_level():
  rooms = {_room(module) for module in _modules()} - {None}
  assert not rooms - set(LEVEL_OF), 'give the new room a place in LEVELS'


def test_every_folder_of_modules_is_a_package():
  # Without __init__.py a folder works from a checkout and is missing from an installed copy.
  folders = {path.parent for path in PACKAGE.rglob('*.py')}
  assert not [str(folder) for folder in folders if not (folder / '__init__.py').is_file()]


def test_what_is_imported_exists():
  # Also where no other test runs the import.
  missing = []
  for module, path in _modules().items():
    for node in ast.walk(_tree(path)):
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      else:
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
      missing += [f'{module} imports {name}' for name in names if name.split('.')[0] == 'eijax' and name not in _modules()]
  assert not missing


def test_imports_go_one_way():
  upward = [
      f'{module} imports {name}'
      for module, name in _edges()
      if _room(module) and _room(name) and LEVEL_OF[_room(name)] > LEVEL_OF[_room(module)]
  ]
  assert not upward


@pytest.mark.parametrize('unit', ('rooms', 'modules'))
def test_no_import_cycle(unit):
  graph = {}
  for module, name in _edges():
    start, end = (_room(module), _room(name)) if unit == 'rooms' else (module, name)
    if start and end and start != end and (unit == 'rooms' or end in _modules()):
      graph.setdefault(start, set()).add(end)
  try:
    graphlib.TopologicalSorter(graph).prepare()
  except graphlib.CycleError as error:
    pytest.fail(' -> '.join(reversed(error.args[1])))


def test_conversation_rooms_know_no_numeric_library_and_no_numeric_room():
  crossing = [
      f'{module} imports {name}'
      for module, name in _edges()
      if _is_conversation(module)
      and (name.split('.')[0] in NUMERIC_LIBRARIES or _room(name) in NUMERIC)
  ]
  assert not crossing


def test_conversation_modules_import_only_each_other():
  # So that nothing numeric can come in by way of a third room.
  shared = set(LEVELS[0])
  foreign = [
      f'{module} imports {name}'
      for module, name in _edges()
      if _is_conversation(module) and _room(name) not in shared | {None}
      # The defaults of the corpus may stand beside it.
      and not _is_conversation(name) and name != 'eijax.warmup.config'
  ]
  assert not foreign


def test_numeric_rooms_know_no_text_and_no_talk():
  crossing = [
      f'{module} imports {name}'
      for module, name in _edges()
      if _room(module) in NUMERIC and _room(name) in CONVERSATION
  ]
  assert not crossing


def test_importing_the_conversation_leaves_jax_out():
  modules = [module for module in _modules() if _is_conversation(module) and not module.endswith('__main__')]
  assert CONVERSATION_MODULES <= set(modules)
  program = (
      'import importlib, sys\n'
      f'for name in {modules!r}:\n'
      '  importlib.import_module(name)\n'
      f'  found = sorted(set(sys.modules) & {set(NUMERIC_LIBRARIES)!r})\n'
      '  if found: sys.exit(f"importing {name} brings in {found}")\n'
  )
  result = subprocess.run(
      [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
  )
  assert result.returncode == 0, result.stderr


def test_only_entry_points_know_flags():
  reading = [
      f'{module}, line {node.lineno}'
      for module, path in _modules().items()
      if module not in ENTRY_POINTS and not module.endswith('__main__')
      for node in ast.walk(_tree(path))
      if (isinstance(node, ast.ImportFrom) and node.module == 'absl' and 'flags' in [a.name for a in node.names])
      or (isinstance(node, ast.ImportFrom) and node.module == 'absl.flags')
      or (isinstance(node, ast.Import) and 'absl.flags' in [a.name for a in node.names])
      or (isinstance(node, ast.Name) and node.id == 'FLAGS')
      or (isinstance(node, ast.Attribute) and node.attr == 'FLAGS')
  ]
  assert not reading


def test_modules_are_small():
  sizes = {
      str(path.relative_to(ROOT)): len(path.read_text(encoding='utf-8').splitlines())
      for path in (*PACKAGE.rglob('*.py'), *(ROOT / 'experiments').rglob('*.py'))
  }
  assert not {name: size for name, size in sizes.items() if size > MAX_LINES}, f'more than {MAX_LINES} lines'
