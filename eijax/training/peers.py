"""The processes of one run: they talk between updates, and notice when one of them is gone.

Small things (counts, rows of talks, whether to stop) go through the key-value store that jax.distributed keeps at
process 0; weights and gradients never do. Every process makes the same exchanges in the same order, so that a number names
each of them.
"""

from collections.abc import Callable, Iterator
import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import jax

from eijax.errors import EijaxError, PreemptedError, UsageError
from eijax.training.machine import MachineConfig
from eijax.training.preemption import Notice, Preemption

_CHUNK_BYTES = 2**20
_BEAT_SECS = 0.5
# How long process 0, which keeps the store, stays for the others to read why it ends.
_LINGER_SECS = 5.0
_on_abort: Any = None


class Peers:
  """All processes of a run. Without a client: one process, whose exchanges are its own.

  Attributes:
    index, count: of this process, and how many there are.
  """

  def __init__(self, client: Any = None, index: int = 0, count: int = 1, timeout_secs: float = 60.0):
    self.index, self.count = index, count
    self._client, self._timeout_secs = client, timeout_secs
    self._round = 0
    self._preemption: Preemption | None = None
    self._stopped = threading.Event()
    if client is not None:
      threading.Thread(target=self._beat, name='peers', daemon=True).start()

  @property
  def is_first(self) -> bool:
    """Whether this process writes the run's files and speaks for all."""
    return self.index == 0

  def say(self, text: str) -> None:
    if self.is_first:
      print(text, flush=True)

  def exchange(self, value: Any) -> list[Any]:
    """What every process has given, in their order. JSON; returns once all have called."""
    return self._exchange(value, self.count)

  def gather(self, value: Any) -> list[Any]:
    """As `exchange`, but only process 0 gets it; the others get an empty list."""
    return self._exchange(value, self.count if self.is_first else 0)

  def attach(self, preemption: Preemption) -> None:
    """A SIGTERM of one process is one of all."""
    self._preemption = preemption

  @contextlib.contextmanager
  def together(self, preemption: Preemption) -> Iterator[None]:
    """A block in which the devices of all processes work as one: all enter it, or all raise a Notice."""
    with preemption.held():
      if any(self.exchange(preemption.noticed)):
        preemption.agreed = True
        raise Notice
      yield

  def agree_to_leave(self, preemption: Preemption) -> None:
    """After a Notice: let the others know, in the exchange that they are about to make."""
    if not preemption.agreed:
      self.exchange(True)
      preemption.agreed = True

  def _exchange(self, value: Any, num_read: int) -> list[Any]:
    if self._client is None:
      return [value]
    number, self._round = self._round, self._round + 1
    data = json.dumps(value).encode()
    chunks = [data[i:i + _CHUNK_BYTES] for i in range(0, len(data), _CHUNK_BYTES)]
    for i, chunk in enumerate(chunks):
      self._client.key_value_set_bytes(f'eijax/data/{number}/{self.index}/{i}', chunk)
    self._client.key_value_set_bytes(f'eijax/posted/{number}/{self.index}', str(len(chunks)).encode())
    pause = 0.002
    while len(posted := self._client.key_value_dir_get_bytes(f'eijax/posted/{number}/')) < self.count:
      time.sleep(pause)
      pause = min(2 * pause, 0.25)
    sizes = {int(key.rpartition('/')[2]): int(text) for key, text in posted}
    # Who has posted this one has read the one before.
    self._client.key_value_delete(f'eijax/data/{number - 1}/{self.index}/')
    self._client.key_value_delete(f'eijax/posted/{number - 1}/{self.index}')
    milliseconds = int(1000 * self._timeout_secs)
    return [
        json.loads(b''.join(
            self._client.blocking_key_value_get_bytes(f'eijax/data/{number}/{i}/{n}', milliseconds) for n in range(sizes[i])))
        for i in range(num_read)
    ]

  def _beat(self) -> None:
    """Say that this process lives, and look whether the others do."""
    beats, heard = 0, {}
    while not self._stopped.wait(_BEAT_SECS):
      beats += 1
      try:
        self._client.key_value_set_bytes(f'eijax/alive/{self.index}', str(beats).encode(), allow_overwrite=True)
        if self._preemption is not None and self._preemption.signalled.is_set():
          self._client.key_value_set_bytes('eijax/sigterm/now', b'1', allow_overwrite=True)
        elif self._preemption is not None and self._client.key_value_dir_get_bytes('eijax/sigterm/'):
          os.kill(os.getpid(), signal.SIGTERM)
        alive = {int(key.rpartition('/')[2]): value for key, value in self._client.key_value_dir_get_bytes('eijax/alive/')}
        gone = self._client.key_value_dir_get_bytes('eijax/gone/')
      except Exception as error:  # pylint: disable=broad-exception-caught
        if not self._stopped.is_set():
          reason = (str(error) or type(error).__name__).splitlines()[0][:200]
          self._end(f'process 0 is gone ({reason}); start all processes again to go on from the last checkpoint', PreemptedError.exit_code)
        return
      for key, value in gone:
        code, message = json.loads(value)
        self._end(f'process {key.rpartition("/")[2]} of {self.count} has ended: {message}', code)
      now = time.monotonic()
      for i in range(self.count):
        if heard.setdefault(i, (None, now))[0] != alive.get(i):
          heard[i] = alive.get(i), now
        elif now - heard[i][1] > self._timeout_secs:
          self._end(f'process {i} of {self.count} has not been heard of for {self._timeout_secs:g} s: its host is gone; start '
                    'all processes again to go on from the last checkpoint', PreemptedError.exit_code)

  def _end(self, message: str, code: int) -> None:
    """End this process, whose main thread may wait for ever for one that is gone."""
    if not self._stopped.is_set():
      print(f'error: {message}', file=sys.stderr, flush=True)
      self._left()
      os._exit(code)

  def leave(self, error: BaseException | None) -> None:
    """Tell the others that this process ends, and why. Process 0 stays until they know."""
    if self._client is None:
      return
    with contextlib.suppress(Exception):
      if error is None:
        self.exchange('end')
      elif not isinstance(error, PreemptedError):  # Of which all know.
        code = error.exit_code if isinstance(error, EijaxError) else 1
        # Our own errors speak for themselves, in one line.
        text = str(error) if isinstance(error, EijaxError) else f'{type(error).__name__}: {error}'.splitlines()[0]
        self._client.key_value_set_bytes(f'eijax/gone/{self.index}', json.dumps([code, text]).encode())
      self._stopped.set()
      self._left()

  def _left(self) -> None:
    with contextlib.suppress(Exception):
      self._client.key_value_set_bytes(f'eijax/left/{self.index}', b'1')
      end = time.monotonic() + _LINGER_SECS
      while self.is_first and time.monotonic() < end and len(self._client.key_value_dir_get_bytes('eijax/left/')) < self.count:
        time.sleep(0.05)


@contextlib.contextmanager
def joined(machine: MachineConfig, *, tpu: bool) -> Iterator[Peers]:
  """Join the other processes of the run, if there are any. Before anything touches a device.

  Args:
    machine: coordinator, num_processes and process_id, or none of them: then a TPU pod slice says by itself.
    tpu: whether that may be asked.
  Raises:
    UsageError: the others were not to be reached.
  """
  if not _initialize(machine, tpu=tpu):
    yield Peers()
    return
  # The store has no public name; orbax reaches for it in the same way.
  state = jax._src.distributed.global_state  # pylint: disable=protected-access
  if state.num_processes == 1:
    yield Peers()
    return
  peers = Peers(state.client, state.process_id, state.num_processes, machine.peer_timeout_secs)
  try:
    yield peers
  except BaseException as error:
    peers.leave(error)
    raise
  peers.leave(None)
  if not peers.is_first:
    # jax's own end waits for process 0, which may be gone by now.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _initialize(machine: MachineConfig, *, tpu: bool) -> bool:
  """Whether jax.distributed runs now."""
  given = machine.coordinator is not None
  if not given and not tpu:
    return False
  # SIGTERM is ours, and the end of a process is noticed by Peers, which can say what to do.
  jax.config.update('jax_enable_preemption_service', False)
  jax.config.update('jax_enable_recoverability', True)
  nobody = (f'coordinator={machine.coordinator or "that of the slice"} was not reached by all processes within '
            f'{machine.join_timeout_secs:g} s; start them all, and give all the address of process 0')
  undo = _catch_abort(nobody, UsageError.exit_code)
  try:
    if given:
      jax.distributed.initialize(
          machine.coordinator, machine.num_processes, machine.process_id, cluster_detection_method='deactivate',
          initialization_timeout=int(machine.join_timeout_secs))
    else:
      jax.distributed.initialize(initialization_timeout=int(machine.join_timeout_secs))
  except ValueError:
    if given:
      raise
    undo()
    return False  # No slice that says who belongs to it: one host by itself.
  except RuntimeError:
    raise UsageError(nobody) from None
  _catch_abort(
      'this process was aborted, the message above says why. Where it names the coordination service, process 0 is gone: start all '
      'processes again to go on from the last checkpoint', PreemptedError.exit_code)
  return True


def _catch_abort(message: str, code: int) -> Callable[[], Any]:
  """Say what to do when jax's client aborts this process, as it does when the others cannot be reached or process 0 is gone.

  Python's own handlers come too late: abort() ends the process as soon as the C function of SIGABRT returns.

  Returns:
    what puts the former function back.
  """
  global _on_abort  # C keeps no hold of it. pylint: disable=global-statement

  @ctypes.CFUNCTYPE(None, ctypes.c_int)
  def on_abort(number: int) -> None:
    del number
    print(f'error: {message}', file=sys.stderr, flush=True)
    os._exit(code)

  _on_abort = on_abort
  libc = ctypes.CDLL(None)
  libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
  former = libc.signal(signal.SIGABRT, ctypes.cast(on_abort, ctypes.c_void_p))
  return lambda: libc.signal(signal.SIGABRT, former)
