"""SIGTERM: this machine is about to go. Save what there is and leave in time, so that the same command goes on.

A spot machine gets 30 seconds (https://cloud.google.com/compute/docs/instances/spot), a pod of GKE on one 15
(https://cloud.google.com/kubernetes-engine/docs/concepts/spot-vms). Talks under way are dropped: a step's talks are a function of its
seeds and come again. Updates under way are finished, because half of a step is no state that a run could
go on from. If the time is up before all that is on disk, the process ends where it is: a checkpoint counts only
once it is committed, so the run goes on from the one before.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import socket
import sys
import threading

from eijax.errors import PreemptedError


class Notice(BaseException):
  """Raised in the main thread at SIGTERM. No Exception: a talk that catches these must not take it for its own."""


class Preemption:
  """Owner of SIGTERM, from `watch` to its end.

  Args:
    grace_secs: from the signal to the end of the process, at the latest.
  Attributes:
    noticed: whether the signal has come to the main thread. signalled: the same, without waiting for that thread.
    agreed: whether the other processes of the run know.
  """

  def __init__(self, grace_secs: float):
    self.noticed = False
    self.signalled = threading.Event()
    self.agreed = False
    self._grace_secs = grace_secs
    self._held = 0
    self._left = threading.Event()

  @contextlib.contextmanager
  def watch(self) -> Iterator[None]:
    """Have SIGTERM raise a Notice in this thread, which must be the main one.

    Raises:
      PreemptedError: it came where there was nothing to save; see `leaving` for the rest.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    former = signal.signal(signal.SIGTERM, self._on_signal)
    # Written to by the C handler, also while the main thread waits for a device or a compiler.
    former_fd = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=self._keep_time, args=(ours,), name='preemption', daemon=True).start()
    try:
      with self.leaving(lambda: None):
        yield
    finally:
      self._left.set()
      signal.set_wakeup_fd(former_fd)
      signal.signal(signal.SIGTERM, former)
      theirs.close()  # Ends the thread, which closes the other one.

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    """Work that is finished before a Notice is raised: what would leave a run between two of its states."""
    self._held += 1
    try:
      yield
    finally:
      self._held -= 1
    self.check()

  def check(self) -> None:
    """Raise the Notice that came meanwhile, if one did."""
    if self.noticed and not self._held:
      raise Notice

  @contextlib.contextmanager
  def leaving(self, save: Callable[[], int | None]) -> Iterator[None]:
    """Turn a Notice into a saved run and a PreemptedError.

    Args:
      save: saves what is not saved yet; returns the step that the run will go on from, None if it has no checkpoint.
    Raises:
      PreemptedError: the run was told to leave.
    """
    try:
      yield
    except Notice:
      self._held += 1  # For good: a second signal changes nothing.
      step = save()
      raise PreemptedError(
          'stopped by SIGTERM; ' + ('nothing was to be saved yet' if step is None else f'saved at step {step}')
          + ': the same command goes on from there') from None

  def _on_signal(self, number: int, frame: object) -> None:
    del number, frame
    if not self.noticed:
      self.noticed = True
      print(f'SIGTERM: saving and leaving within {self._grace_secs:g} s', file=sys.stderr, flush=True)
      self.check()

  def _keep_time(self, wakeups: socket.socket) -> None:
    with wakeups:
      while signals := wakeups.recv(64):
        if signal.SIGTERM in signals:
          self.signalled.set()
          if self._left.wait(self._grace_secs):
            return
          print(f'error: stopped by SIGTERM; not saved within grace_secs={self._grace_secs:g}: the same command goes on from '
                'the last checkpoint', file=sys.stderr, flush=True)
          os._exit(PreemptedError.exit_code)  # No clean-up may hold it up; what is on disk is whole.
