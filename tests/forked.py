"""Lives of a program that a test starts again and again, or several times at once, with one import for all of them.

The program imports what its lives need and touches no device, so that it has one thread when it forks. Each life is a process: it
can be killed, and ends with a status.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from typing import NamedTuple

import jax

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Life(NamedTuple):
  """status: of the exit; negative, the signal that killed it."""

  status: int
  stdout: str
  stderr: str


def environment(num_devices: int | None = None) -> dict[str, str]:
  """That of a program: compiled programs of the test process are its own."""
  flags = os.environ['XLA_FLAGS']
  if num_devices is not None:
    flags = re.sub(r'--xla_force_host_platform_device_count=\d+', f'--xla_force_host_platform_device_count={num_devices}', flags)
  return os.environ | {
      'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT), 'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'JAX_NUMPY_RANK_PROMOTION': 'raise',
      'OPENBLAS_NUM_THREADS': '1'}


@contextlib.contextmanager
def every_program_is_kept() -> Iterator[None]:
  """Have the test process keep all that it compiles for the lives of a program, and for its own later runs."""
  least = jax.config.jax_persistent_cache_min_compile_time_secs
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  try:
    yield
  finally:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', least)


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


def run_program(script: str, *arguments: str, timeout_secs: float, env: Mapping[str, str] | None = None) -> list[Life]:
  """The lives of tests/SCRIPT, which calls `live`."""
  with subprocess.Popen([sys.executable, str(ROOT / 'tests' / script), *arguments], env=env or environment(), stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
    try:
      out, err = process.communicate(timeout=timeout_secs)
    finally:
      with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # With all its lives.
  assert process.returncode == 0, err
  return [Life(*json.loads(line)) for line in out.splitlines()]


def live(lives: Sequence[Callable[[], object]], *, at_once: bool = False) -> None:
  """Called by a program: live these, one after the other or all at once, and tell the test."""
  # No context: a life that ends would leave it, too.
  folder = pathlib.Path(tempfile.mkdtemp(prefix='eijax_lives_'))
  paths = [[folder / f'{number}.{name}' for name in ('out', 'err')] for number in range(len(lives))]
  begun = []
  for life, logs in zip(lives, paths):
    begun.append(_fork(life, *logs))
    if not at_once:
      begun[-1] = _end_of(begun[-1])
  statuses = list(map(_end_of, begun)) if at_once else begun
  for status, logs in zip(statuses, paths):
    print(json.dumps([status, *(path.read_text() for path in logs)]))
  shutil.rmtree(folder)


def _end_of(pid: int) -> int:
  return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(life: Callable[[], object], out: pathlib.Path, err: pathlib.Path) -> int:
  from eijax import command  # pylint: disable=import-outside-toplevel

  sys.stdout.flush()
  if pid := os.fork():
    return pid
  for number, path in enumerate((out, err), start=1):
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
  sys.argv = sys.argv[:1]
  command.run(lambda argv: life())  # Exits.
