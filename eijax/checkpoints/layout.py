"""What a checkpoint folder holds on disk, and whether it is whole. Needs no devices and no jax.

    FOLDER/000020/params/...         parameters, written by orbax
    FOLDER/000020/optimizer/...      moments and counters, written by orbax
    FOLDER/000020/host_state.json    everything a run needs beside device arrays
    FOLDER/000020/manifest.json      shapes, file sizes and checksums; written last
    FOLDER/base/000000/...           of a policy with an adapter: frozen parameters, once for all steps

The manifest is the commit: a step without one was interrupted, counts for nothing
and is swept away. Orbax alone notices neither a flipped bit in array data nor a
changed dtype, which is why sizes, checksums, shapes and dtypes are kept here.
"""

from collections.abc import Mapping
import errno
import json
import os
import shutil
from typing import Any
import zlib

from etils import epath

from eijax.errors import CheckpointError

MANIFEST = 'manifest.json'
HOST_STATE = 'host_state.json'
PARAMS = 'params'
OPTIMIZER = 'optimizer'
BASE = 'base'
# Reading back everything that was just written is free for small states; beyond this, sizes must do.
CHECKSUM_LIMIT_BYTES = 8 * 2**30
_BLOCK_BYTES = 2**22


def step_path(folder: epath.PathLike, step: int) -> epath.Path:
  """Where step `step` lies, as an absolute path: orbax takes no other."""
  path = epath.Path(folder) / f'{step:06d}'
  return path if '://' in os.fspath(path) else epath.Path(os.path.abspath(path))


def complete_steps(folder: epath.PathLike) -> list[int]:
  """Committed steps, ascending; empty if the folder does not exist."""
  folder = epath.Path(folder)
  if not folder.is_dir():
    return []
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and (p / MANIFEST).exists())


def latest_step(folder: epath.PathLike) -> int | None:
  """The last committed step, or None."""
  return max(complete_steps(folder), default=None)


def sweep(folder: epath.PathLike) -> None:
  """Remove what an interrupted save or removal left behind."""
  for path in epath.Path(folder).iterdir():
    name = path.name.partition('.orbax-checkpoint-tmp')[0]
    if path.is_dir() and name.isdecimal() and not (path / MANIFEST).exists():
      path.rmtree()
  base = epath.Path(folder) / BASE
  if base.is_dir():
    # Without a step, it is of a run that began and has left nothing else.
    sweep(base) if complete_steps(folder) else base.rmtree()


def remove_step(folder: epath.PathLike, step: int) -> None:
  """Delete a step; interrupted at any point, it leaves a whole step or one that `sweep` removes."""
  path = step_path(folder, step)
  (path / MANIFEST).unlink()
  path.rmtree()


def write_json(path: epath.Path, value: Any) -> None:
  """Write JSON so that a reader finds the whole file or none."""
  partial = path.parent / f'{path.name}.partial'
  partial.write_text(json.dumps(value, indent=1, allow_nan=False))
  partial.replace(path)


def commit(path: epath.Path, arrays: Mapping[str, Any], base: int | None = None) -> None:
  """Write the manifest of a finished step.

  Args:
    path: of the step.
    arrays: name -> [shape, dtype name], as `restore` will ask for them.
    base: `base_checksum` of the frozen parameters that the step goes with; None if it has them all itself.
  """
  files = _files(path)
  checksums = sum(p.stat().length for p in files.values()) <= CHECKSUM_LIMIT_BYTES
  entries = {name: [p.stat().length, _crc32(p) if checksums else None] for name, p in files.items()}
  write_json(path / MANIFEST, {'arrays': dict(arrays), 'files': entries} | ({} if base is None else {'base': base}))


def base_checksum(folder: epath.PathLike) -> int:
  """Tells the frozen parameters of a folder from others: the checksum of their manifest."""
  return _crc32(step_path(epath.Path(folder) / BASE, 0) / MANIFEST)


def read_manifest(folder: epath.PathLike, step: int) -> dict[str, Any]:
  """The manifest of a committed step."""
  path = step_path(folder, step) / MANIFEST
  try:
    manifest = json.loads(path.read_text())
    if not (isinstance(manifest['arrays'], dict) and isinstance(manifest['files'], dict)):
      raise TypeError('arrays and files must be objects')
    return manifest
  except (OSError, ValueError, KeyError, TypeError) as e:
    raise _damaged(folder, step, f'{MANIFEST} cannot be read ({e})') from e


def verify(folder: epath.PathLike, step: int, *, items: tuple[str, ...] = (PARAMS, OPTIMIZER, HOST_STATE)) -> None:
  """Check the files of a committed step against its manifest, with the frozen parameters that it goes with.

  Raises:
    CheckpointError: one is missing, or differs in size or checksum; names it.
  """
  path, manifest = step_path(folder, step), read_manifest(folder, step)
  if PARAMS in items and 'base' in manifest:
    verify(epath.Path(folder) / BASE, 0, items=(PARAMS,))
    if base_checksum(folder) != manifest['base']:
      raise _damaged(folder, step, f'{epath.Path(folder) / BASE} holds the frozen parameters of another run')
  for name, (size, crc32) in manifest['files'].items():
    if name.partition('/')[0] not in items:
      continue
    file = path / name
    if not file.exists():
      raise _damaged(folder, step, f'{name} is missing')
    if file.stat().length != size:
      raise _damaged(folder, step, f'{name} has {file.stat().length} bytes instead of {size}')
    if crc32 is not None and _crc32(file) != crc32:
      raise _damaged(folder, step, f'{name} has a wrong checksum')


def pick_step(folder: epath.PathLike, step: int | None) -> int:
  """`step` if it is committed, the latest one for None.

  Raises:
    CheckpointError: there is none.
  """
  steps = complete_steps(folder)
  if not steps:
    raise CheckpointError(f'{folder} holds no finished checkpoint; give the checkpoints folder of a run that saved one')
  if step is None:
    return steps[-1]
  if step not in steps:
    raise CheckpointError(f'{folder} holds no checkpoint of step {step}; it has {", ".join(map(str, steps))}')
  return step


def read_host_state(folder: epath.PathLike, step: int | None = None) -> dict[str, Any]:
  """The host state of a step (default: the latest), without touching a device.

  Raises:
    CheckpointError: no such step, or its file is damaged.
  """
  step = pick_step(folder, step)
  verify(folder, step, items=(HOST_STATE,))
  return json.loads((step_path(folder, step) / HOST_STATE).read_text())


def check_space(folder: epath.Path, need_bytes: int) -> None:
  """Make sure that `need_bytes` can be written to a local folder, by reserving them for a moment.

  Asked before orbax starts, whose threads print tracebacks of their own when a write fails half-way.
  Reserving also meets quotas and file size limits, which the free space of the disk does not show.

  Raises:
    CheckpointError: they cannot.
  """
  if not os.path.isdir(folder) or need_bytes > CHECKSUM_LIMIT_BYTES or not hasattr(os, 'posix_fallocate'):
    return
  probe = folder / '.space'
  try:
    with open(probe, 'wb') as f:
      os.posix_fallocate(f.fileno(), 0, max(1, need_bytes))
  except OSError as e:
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
      raise CheckpointError(
          f'{folder} cannot take a checkpoint of {need_bytes / 2**20:,.1f} MiB ({e.strerror}; '
          f'{shutil.disk_usage(folder).free / 2**20:,.1f} MiB are free); make room or choose another workdir, then '
          'start again to resume') from e
  finally:
    probe.unlink(missing_ok=True)


def _damaged(folder: epath.PathLike, step: int, what: str) -> CheckpointError:
  former = [s for s in complete_steps(folder) if s < step]
  remedy = f'to resume from step {former[-1]}' if former else 'and start again'
  return CheckpointError(f'checkpoint {step_path(folder, step)} is damaged: {what}; restore it from a copy, or remove '
                         f'that folder {remedy}')


def _files(path: epath.Path) -> dict[str, epath.Path]:
  """All files under `path` by their relative name, sorted."""
  found = {}
  for child in path.iterdir():
    if child.is_dir():
      found.update({f'{child.name}/{name}': file for name, file in _files(child).items()})
    elif not child.name.startswith(MANIFEST):
      found[child.name] = child
  return dict(sorted(found.items()))


def _crc32(path: epath.Path) -> int:
  value = 0
  with path.open('rb') as f:
    while block := f.read(_BLOCK_BYTES):
      value = zlib.crc32(block, value)
  return value
