"""The settings of a run as plain data: written beside its results, compared when it goes on."""

from collections.abc import Mapping
import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

from eijax import __version__, jsonl
from eijax.errors import DataError, UsageError

# Said beside the settings, but not part of them.
_DESCRIPTION = ('versions', 'git_revision')
_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'sentencepiece', 'requests')
_MAX_SHOWN = 6


def to_plain(value: Any) -> Any:
  """A config as nested dicts, lists and scalars, for JSON."""
  if dataclasses.is_dataclass(value):
    return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
  return list(value) if isinstance(value, tuple) else value


def differences(old: Any, new: Any, path: str = '') -> list[tuple[str, Any, Any]]:
  """(dotted name, old, new) wherever two plain configs differ."""
  if isinstance(old, Mapping) and isinstance(new, Mapping):
    return [difference for key in sorted({*old, *new})
            for difference in differences(old.get(key), new.get(key), f'{path}.{key}' if path else key)]
  return [] if old == new else [(path, old, new)]


def versions() -> dict[str, str]:
  """Versions of this project, Python and the packages that shape a result."""
  return {'eijax': __version__, 'python': platform.python_version(),
          **{name: importlib.metadata.version(name) for name in _PACKAGES}}


def git_revision() -> str | None:
  """Revision of the checkout that the code runs from, '+changes' if it is modified; None outside one."""
  folder = os.path.dirname(os.path.abspath(__file__))

  def git(*words: str) -> str:
    return subprocess.run(('git', '-C', folder, *words), capture_output=True, text=True, check=True, timeout=10).stdout.strip()

  try:
    # An installed copy may lie inside some other project's checkout.
    git('ls-files', '--error-unmatch', os.path.basename(__file__))
    return git('rev-parse', 'HEAD') + ('+changes' if git('status', '--porcelain', '--untracked-files=no') else '')
  except (OSError, subprocess.SubprocessError):
    return None


def write(path: str | os.PathLike, plain: Mapping[str, Any]) -> None:
  """Write the settings of a new run, with versions and git revision beside them."""
  jsonl.write_json(path, {**plain, 'versions': versions(), 'git_revision': git_revision()})


def check_same(path: str | os.PathLike, plain: Mapping[str, Any], holder: str, flag: str) -> None:
  """Refuse to go on with a run under other settings than it began with.

  Args:
    path: its config.json.
    plain: the settings of now.
    holder: begins the message, e.g. 'workdir runs/a holds a run'.
    flag: names another folder.
  Raises:
    UsageError: names the settings that differ, with both values.
    DataError: the file is broken.
  """
  old = jsonl.read_json(path)
  if not isinstance(old, Mapping):
    raise DataError(f'{pathlib.Path(path)}: must hold the settings of the run as a JSON object; restore it from a copy')
  old = {key: value for key, value in old.items() if key not in _DESCRIPTION}
  changed = differences(old, plain)
  if changed:
    shown = '; '.join(f'{name} was {before!r}, now {now!r}' for name, before, now in changed[:_MAX_SHOWN])
    more = f' and {len(changed) - _MAX_SHOWN} more' if len(changed) > _MAX_SHOWN else ''
    raise UsageError(f'{holder} with other settings ({shown}{more}); use those settings to go on with it, or choose another {flag}')
