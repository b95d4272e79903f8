"""Curves for TensorBoard, beside metrics.jsonl, which holds the same numbers and counts."""

from collections.abc import Iterator, Mapping
import contextlib
import os
import pathlib
import time
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from eijax.errors import EijaxError


class ScalarLog:
  """Owner of a run's event files.

  Args:
    folder: created.
    first_step: what an earlier process wrote of this step and later ones is void.
  """

  def __init__(self, folder: str | os.PathLike, first_step: int):
    self._folder = pathlib.Path(folder)
    with self._written():
      self._folder.mkdir(parents=True, exist_ok=True)
      # Not SummaryWriter: its thread and its exit hook print tracebacks when the disk is full.
      self._writer = EventsWriter(str(self._folder / 'events'), f'.{os.getpid()}.{first_step}')
      self._writer.write_event(Event(
          wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START)))
      self._writer.flush()

  def __enter__(self) -> 'ScalarLog':
    return self

  def __exit__(self, *exc_info) -> None:
    with contextlib.suppress(OSError):  # What was added is written, or `add` has said why not.
      self._writer.close()

  def add(self, step: int, values: Mapping[str, Any], prefix: str = '') -> None:
    """The numbers of a row, under their names; what is no number is left out.

    Raises:
      EijaxError: they cannot be written.
    """
    numbers = [Summary.Value(tag=f'{prefix}{name}', simple_value=value) for name, value in values.items()
               if isinstance(value, (int, float)) and not isinstance(value, bool) and name != 'step']
    with self._written():
      self._writer.write_event(Event(wall_time=time.time(), step=step, summary=Summary(value=numbers)))
      self._writer.flush()

  @contextlib.contextmanager
  def _written(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise EijaxError(f'{self._folder} cannot be written ({error.strerror}); make room or choose another --workdir') from None
