"""The embedded simulator, or another service with its flags, in a process of its own."""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence

from eijax.errors import SimulatorError

_START_TIMEOUT_SECS = 60.0


@contextlib.contextmanager
def running_server(
  *, seed: int = 0, latency_secs: float = 0.0, fault_rate: float = 0.0
) -> Iterator[str]:
  """Serve in a process of its own and yield the base URL; it ends with the block or with us.

  An own process leaves this one's interpreter lock alone.

  Raises:
    SimulatorError: the process did not come up.
  """
  process = start_in_subprocess(seed=seed, latency_secs=latency_secs, fault_rate=fault_rate)
  try:
    yield process.url
  finally:
    process.stop()


class SimulatorProcess:
  """The server in a child process; `url` is its address, `stop` ends it.

  The child watches its stdin and its parent, and so dies with us even on SIGKILL.

  Args:
    module, arguments: another command that serves with the flags of eijax.simulator, and its own.
  """

  def __init__(
    self,
    *,
    seed: int = 0,
    latency_secs: float = 0.0,
    fault_rate: float = 0.0,
    module: str = 'eijax.simulator',
    arguments: Sequence[str] = (),
  ):
    command = [
      sys.executable,
      '-m',
      module,
      *arguments,
      '--port=0',
      f'--seed={seed}',
      '--follow_parent',
      f'--latency_secs={latency_secs}',
      f'--fault_rate={fault_rate}',
    ]
    environment = dict(os.environ)
    # The child must find the same package as we, wherever it is started from.
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment['PYTHONPATH'] = os.pathsep.join(filter(None, (root, environment.get('PYTHONPATH'))))
    # Its own session: a Ctrl-C in the terminal ends the trainer first, then, through stdin, the server.
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env=environment,
      start_new_session=True,
    )
    self.url = self._read_url()

  @property
  def pid(self) -> int:
    return self._process.pid

  @property
  def exit_code(self) -> int | None:
    return self._process.poll()

  def alive(self) -> bool:
    return self._process.poll() is None

  def stop(self) -> None:
    """End the child and wait for it; harmless when it is gone already."""
    if self._process.poll() is None:
      self._process.terminate()
      try:
        self._process.wait(timeout=5)
      except subprocess.TimeoutExpired:
        self._process.kill()
        self._process.wait()
    for pipe in (self._process.stdin, self._process.stdout):
      with contextlib.suppress(OSError):
        pipe.close()

  def _read_url(self) -> str:
    ready, _, _ = select.select([self._process.stdout], [], [], _START_TIMEOUT_SECS)
    line = self._process.stdout.readline().decode().strip() if ready else ''
    if not line.startswith('http'):
      self.stop()
      raise SimulatorError(
        f'the embedded simulator did not start within {_START_TIMEOUT_SECS:.0f} s (it said {line!r}); '
        'run `python -m eijax.simulator` by hand to see why'
      )
    return line


def start_in_subprocess(
  *, seed: int = 0, latency_secs: float = 0.0, fault_rate: float = 0.0
) -> SimulatorProcess:
  """Start the server in a child process and wait until it serves.

  Raises:
    SimulatorError: it did not come up.
  """
  return SimulatorProcess(seed=seed, latency_secs=latency_secs, fault_rate=fault_rate)
