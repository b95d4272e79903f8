"""A profile of some steps, for XProf, TensorBoard or Perfetto."""

import contextlib
import os
import pathlib

import jax

from eijax.errors import EijaxError


class ProfileWindow:
  """Traces the steps of `steps`, [first, end), into a folder.

  Args:
    steps: None for none.
    folder: gets plugins/profile/TIME/HOST.xplane.pb, as jax.profiler writes it.
  """

  def __init__(self, steps: tuple[int, int] | None, folder: str | os.PathLike):
    self._steps, self._folder = steps, pathlib.Path(folder)
    self._is_open = False

  def __enter__(self) -> 'ProfileWindow':
    return self

  def __exit__(self, *exc_info) -> None:
    self._stop()

  @contextlib.contextmanager
  def step(self, number: int):
    """Step `number`, named in the profile."""
    if self._steps is not None and self._steps[0] <= number < self._steps[1] and not self._is_open:
      try:
        self._folder.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise EijaxError(f'{self._folder} cannot be created ({error.strerror}); make room, or leave out --profile_steps') from None
      jax.profiler.start_trace(str(self._folder))
      self._is_open = True
    with jax.profiler.StepTraceAnnotation('step', step_num=number):
      yield
    if self._steps is not None and number + 1 >= self._steps[1]:
      self._stop()

  def _stop(self) -> None:
    if self._is_open:
      self._is_open = False
      jax.profiler.stop_trace()
      print(f'profile: {self._folder}', flush=True)
