"""Curves for TensorBoard, beside metrics.jsonl, which holds the same numbers and counts."""

from collections.abc import Mapping
import os
import pathlib
from typing import Any

from tensorboardX import SummaryWriter

from eijax.errors import EijaxError


class ScalarLog:
  """Owner of a run's event files.

  Args:
    folder: created.
    first_step: what an earlier process wrote of this step and later ones is void.
  """

  def __init__(self, folder: str | os.PathLike, first_step: int):
    self._folder = pathlib.Path(folder)
    try:
      self._writer = SummaryWriter(str(folder), purge_step=first_step)
    except OSError as error:
      raise EijaxError(f'{self._folder} cannot be written ({error.strerror}); make room or choose another --workdir') from None

  def __enter__(self) -> 'ScalarLog':
    return self

  def __exit__(self, *exc_info) -> None:
    self._writer.close()

  def add(self, step: int, values: Mapping[str, Any], prefix: str = '') -> None:
    """The numbers of a row, under their names; what is no number is left out."""
    for name, value in values.items():
      if isinstance(value, (int, float)) and not isinstance(value, bool) and name != 'step':
        self._writer.add_scalar(f'{prefix}{name}', value, step)
    self._writer.flush()
