"""Durable JSON and JSON-lines files: append, atomic replace, read with line numbers.

A record that `Appender.append` returned from survives a kill or a power cut. At most
the line being written is lost, and it is cut when the file is next opened.
"""

import contextlib
import json
import os
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from eijax.errors import DataError, EijaxError


def _write_error(path: pathlib.Path, error: OSError) -> EijaxError:
  reason = error.strerror or str(error)
  return EijaxError(
      f'cannot write {path}: {reason}; free some space or choose a writable folder'
  )


def _encode(obj: Any, indent: int | None = None) -> bytes:
  # A model may emit half of a surrogate pair, which UTF-8 cannot hold: it becomes '?'.
  text = json.dumps(obj, ensure_ascii=False, allow_nan=False, indent=indent)
  return text.encode('utf-8', 'replace')


def _decode(line: bytes, where: str) -> Any:
  try:
    return json.loads(line.decode('utf-8'))
  except UnicodeDecodeError as error:
    raise DataError(
        f'{where}: byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8'
    ) from None
  except json.JSONDecodeError as error:
    raise DataError(
        f'{where}: column {error.pos + 1}: broken JSON ({error.msg}); '
        'each line must hold one complete JSON object'
    ) from None
  except (ValueError, RecursionError) as error:  # A 5,000-digit number; 10,000 brackets.
    raise DataError(f'{where}: unreadable JSON ({error}); shorten the value') from None


def read(path: str | os.PathLike) -> Iterator[tuple[int, Any]]:
  """Yield (line number from 1, value) for every line that is not blank.

  Raises:
    DataError: if the file is missing or unreadable, or a line is not JSON (names
      file, line and column).
  """
  path = pathlib.Path(path)
  try:
    with path.open('rb') as file:
      for number, line in enumerate(file, start=1):
        if number == 1:
          line = line.removeprefix(b'\xef\xbb\xbf')
        if line.strip():
          yield number, _decode(line.rstrip(b'\r\n'), f'{path}:{number}')
  except OSError as error:
    raise DataError(f'{path}: cannot be read ({error.strerror}); check the path') from None


def read_objects(path: str | os.PathLike) -> list[dict]:
  """Read back what `Appender` wrote, without a last line that a kill cut short."""
  path = pathlib.Path(path)
  try:
    content = path.read_bytes()
  except FileNotFoundError:
    return []
  except OSError as error:
    raise DataError(f'{path}: cannot be read ({error.strerror}); check the path') from None
  lines = content[: _num_sound_bytes(content)].split(b'\n')
  return [
      _decode(line, f'{path}:{number}')
      for number, line in enumerate(lines, start=1)
      if line.strip()
  ]


def _num_sound_bytes(content: bytes) -> int:
  """Length without a last line that has no newline and is no complete JSON object."""
  start = content.rfind(b'\n') + 1
  try:
    # A prefix of an object never parses, so one that parses only lacks its newline.
    whole = isinstance(json.loads(content[start:]), dict)
  except (ValueError, RecursionError):
    whole = False
  return len(content) if whole else start


class Appender:
  """Owns an append-only JSON-lines file; every record is on disk when `append` returns.

  Safe to share between threads. Opening cuts a last line that a kill left incomplete.
  """

  def __init__(self, path: str | os.PathLike):
    self._path = pathlib.Path(path)
    self._lock = threading.Lock()
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      self._file = open(self._path, 'a+b', buffering=0)  # pylint: disable=consider-using-with
      try:
        self._mend_last_line()
      except OSError:
        self._file.close()
        raise
    except OSError as error:
      raise _write_error(self._path, error) from None

  def _mend_last_line(self) -> None:
    self._file.seek(0)
    content = self._file.read()
    num_sound = _num_sound_bytes(content)
    if num_sound < len(content):
      self._file.truncate(num_sound)
    elif content and not content.endswith(b'\n'):
      self._file.write(b'\n')

  def append(self, obj: dict) -> None:
    """Write one object as one line, durably.

    Raises:
      EijaxError: if the disk is full or the file cannot be written; the file then
        ends with the last whole record.
    """
    self.extend([obj])

  def extend(self, objs: Sequence[dict]) -> None:
    """Write objects as lines, durably, for the price of one; all or, where it raises, none."""
    line = b''.join(_encode(obj) + b'\n' for obj in objs)
    with self._lock:
      try:
        end = self._file.seek(0, os.SEEK_END)
        try:
          # An unbuffered write may be short when the disk fills up.
          written = 0
          while written < len(line):
            written += self._file.write(line[written:])
          os.fsync(self._file.fileno())
        except OSError:
          self._file.truncate(end)
          raise
      except OSError as error:
        raise _write_error(self._path, error) from None

  def close(self) -> None:
    self._file.close()

  def __enter__(self) -> 'Appender':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()


def _replace(path: pathlib.Path, write: Callable[[BinaryIO], object]) -> None:
  """Replace a file at once with what `write` puts into it."""
  temporary = path.with_name(f'.{path.name}.{os.getpid()}.{threading.get_ident()}.tmp')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary.open('wb') as file:
      write(file)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
      os.fsync(folder)  # Makes the new name itself durable.
    finally:
      os.close(folder)
  except OSError as error:
    raise _write_error(path, error) from None
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
  """Replace a file at once: a reader sees the old content or the new, never a part.

  Raises:
    EijaxError: if the folder cannot be written or the disk is full; the old file stays.
  """
  _replace(pathlib.Path(path), lambda file: file.write(content))


def write_json(path: str | os.PathLike, obj: Any) -> None:
  """Replace a JSON file atomically (indented, UTF-8)."""
  write_bytes(path, _encode(obj, indent=2) + b'\n')


def write_lines(path: str | os.PathLike, objs: list[dict]) -> None:
  """Replace a JSON-lines file atomically, one object a line."""
  write_bytes(path, b''.join(_encode(obj) + b'\n' for obj in objs))


def rewrite_lines(path: str | os.PathLike, place: Callable[[Any], Any]) -> None:
  """Put the lines of a JSON-lines file in order, atomically, and without holding them all.

  Args:
    place: of an object: what to sort by, or None to leave its line out.
  Raises:
    DataError: see `read`.
    EijaxError: see `write_bytes`.
  """
  path = pathlib.Path(path)
  kept, start, dropped = [], 0, False
  with path.open('rb') as file:
    for number, line in enumerate(file, start=1):
      if line.strip():
        key = place(_decode(line.rstrip(b'\r\n'), f'{path}:{number}'))
        if key is not None:
          kept.append((key, start, len(line)))
        dropped |= key is None
      start += len(line)
  ordered = sorted(kept)
  if ordered == kept and not dropped:
    return

  def write(out: BinaryIO) -> None:
    with path.open('rb') as file:
      for _, offset, size in ordered:
        file.seek(offset)
        out.write(file.read(size).rstrip(b'\r\n') + b'\n')

  _replace(path, write)


def read_json(path: str | os.PathLike) -> Any:
  """Read one JSON file.

  Raises:
    DataError: if it is missing or broken (names file, line and column).
  """
  path = pathlib.Path(path)
  try:
    return json.loads(path.read_bytes().decode('utf-8'))
  except OSError as error:
    raise DataError(f'{path}: cannot be read ({error.strerror}); check the path') from None
  except json.JSONDecodeError as error:
    raise DataError(
        f'{path}:{error.lineno}: column {error.colno}: broken JSON ({error.msg}); mend the file'
    ) from None
  except (ValueError, RecursionError) as error:
    raise DataError(f'{path}: unreadable JSON ({error}); mend the file') from None
