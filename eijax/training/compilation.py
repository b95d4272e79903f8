"""Compiled programs that outlive their process."""

import hashlib
import os
import pathlib
import platform
import sys

import jax

from eijax.errors import UsageError

OFF = 'off'


def default_folder() -> str:
  """eijax/compiled in the user's cache folder."""
  return os.path.join(os.environ.get('XDG_CACHE_HOME') or os.path.join(os.path.expanduser('~'), '.cache'), 'eijax', 'compiled')


def use_cache(folder: str) -> None:
  """Keep compiled programs in a folder, and take them from there. The devices must be known by now.

  Args:
    folder: created. Empty: the user's, unless jax has been told of one (JAX_COMPILATION_CACHE_DIR); where that folder
      cannot be written the run compiles without. `off`: none.
  Raises:
    UsageError: a folder that was asked for cannot be written.
  """
  if folder == OFF:
    jax.config.update('jax_compilation_cache_dir', None)
    return
  if not folder and jax.config.jax_compilation_cache_dir:
    return
  # Programs for a CPU are for that model of it; jax's own key knows only that it is one.
  path = pathlib.Path(folder or default_folder()) / f'{jax.default_backend()}{_cpu_model()}'
  try:
    path.mkdir(parents=True, exist_ok=True)
    probe = path / f'.writable-{os.getpid()}'
    probe.touch()
    probe.unlink()
  except OSError as error:
    if folder:
      raise UsageError(f'compilation_cache={folder!r} cannot be written ({error.strerror}); choose another folder, or '
                       f'--compilation_cache={OFF}') from None
    print(f'compiling without a cache: {path} cannot be written ({error.strerror})', file=sys.stderr, flush=True)
    return
  jax.config.update('jax_compilation_cache_dir', str(path))


def _cpu_model() -> str:
  """-HASH of what this CPU can do, where programs are compiled for it; else empty."""
  if jax.default_backend() != 'cpu':
    return ''
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    features = next((line for line in lines if line.startswith(('flags', 'Features'))), '')
  except OSError:
    features = ''
  return '-' + hashlib.sha256(f'{platform.machine()} {platform.processor()} {features}'.encode()).hexdigest()[:8]
